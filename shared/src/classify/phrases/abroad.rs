//! What failures say in other languages than English, by word stems: endings differ, and Chinese, Japanese and Korean do not
//! need them.

/// Two that wait for each other.
pub(in crate::classify) const DEADLOCK: &str = "\
     死锁; 死結; デッドロック; 교착; 데드락; взаимоблокировка; verklemmung; interbloqueo; interblocage; impasse detectado";

/// Somebody else holds it.
pub(in crate::classify) const LOCKED: &str = "\
     锁超时; 获取锁; 锁等待; 数据库被锁; 被锁定; ロックを取得; ロックされ; ロック待ち; 잠금; 잠겨; 락을 획득; sperre konnte; ist gesperrt durch; \
     verrou; bloqueo*{espera,obtener,adquirir}; блокировк";

/// More input than the model takes.
pub(in crate::classify) const TOO_LONG: &str = "\
     上下文; 长度超过; 超出最大; 输入过长; 輸入過長; 超过模型; 超过最大长度; 内容过长; 文本过长; コンテキスト; 長すぎます; 컨텍스트; 너무 깁니다; 토큰 제한을 초과; 최대 토큰; \
     kontext*{lang,läng,überschr}; eingabe*zu lang; fenêtre de contexte; longueur*contexte; trop long; \
     ventana de contexto; longitud*contexto; demasiado largo; demasiado larga; janela de contexto; \
     muito longo; muito longa; contesto*troppo; troppo lungo; длин*контекст; слишком длинн";

/// A filter said no.
pub(in crate::classify) const FILTERED: &str = "\
     敏感; 不安全; 违规; 风险; 安全审核; 内容审核; 不合规; 不適切; ポリシー違反; コンテンツポリシー; 부적절; 콘텐츠 정책; 정책 위반; 유해; inhaltsrichtlinie; \
     unangemessen; contenu inapproprié; contenu sensible; politique de contenu; \
     contenido {inapropiado,inadecuado,sensible}; política* de contenido; \
     conteúdo {impróprio,inadequado,sensível}; contenut{o,i} inappropriat; неприемлем; \
     недопустимый контент";

/// A caller whom the server does not know.
pub(in crate::classify) const UNKNOWN_CALLER: &str = "\
     令牌; 无效的api; 认证失败; 身份验证; 鉴权; 密钥; 未授权; 未登录; 请登录; 登录已过期; 登入; 認證; 認証; apiキー; 인증; api 키; 로그인; 비밀번호; \
     authentifizierung; api-schlüssel; anmeldung fehlgeschlagen; authentification; clé api; clé d'api; \
     non authentifié; mot de passe; autenticación; clave de api; clave api; credenciales; contraseña; \
     autenticação; chave de api; chave da api; credenciais; autenticazione; chiave api; credenziali; \
     аутентификаци; авторизаци; ключ api; api-ключ; неверный пароль";

/// A known caller who may not do this.
pub(in crate::classify) const NOT_ALLOWED: &str = "\
     权限; 權限; 无权; 禁止访问; 拒绝访问; 访问被拒绝; 権限; アクセスが拒否; 許可されて; 권한; 액세스가 거부; 접근이 거부; 허용되지 않; zugriff verweigert; \
     zugriff wurde verweigert; berechtigung; accès refusé; accès interdit; droits insuffisants; \
     n'êtes pas autorisé; acceso denegado; permisos insuficientes; no tiene permiso; no autorizado; \
     acesso negado; permissão; accesso negato; autorizzazioni insufficienti; доступ запрещ; \
     отказано в доступе; недостаточно прав; нет прав";

/// More work than the server can take.
pub(in crate::classify) const OVERLOADED: &str = "\
     负载; 負載; 访问量过大; 访问量较大; 饱和; 繁忙; 忙碌; 过载; 拥堵; 混み合; 混雑; 過負荷; 과부하; 혼잡; überlastet; ausgelastet; surchargé; \
     saturé; sobrecargado; saturado; sobrecarregado; sovraccaric; перегруж";

/// A router that has nobody to send the request to. Before what is said of callers: routers sort them by their keys.
pub(in crate::classify) const NOBODY_SERVES: &str = "\
     {无可用,没有可用,沒有可用}{的,}{渠道,通道,供应商,节点,账号,模型}; 利用可能なプロバイダ; 사용 가능한 {공급자,채널}";

/// A model that is not there.
pub(in crate::classify) const NO_SUCH_MODEL: &str = "\
     模型不存在; 模型*不存在; 不支持该模型; 未找到模型; 模型已下线; モデルが見つかりません; モデルが存在しません; 모델을 찾을 수 없; 존재하지 않는 모델; \
     {지원하지,지원되지} 않는 모델; modell*{nicht gefunden,nicht verfügbar,existiert nicht}; \
     modèle*{introuvable,n'existe pas,indisponible}; modelo*{no encontrado,no existe,no disponible,\
     não encontrado,não existe}; modello*{non trovato,non esiste,non disponibile}; \
     модель*не {найдена,существует}";

/// A clock ran out.
pub(in crate::classify) const TIMEOUT: &str = "\
     超时; 超時; 逾时; 逾時; 没有正确答复; タイムアウト; 時間切れ; 시간 초과; 시간초과; 시간이 초과; 시간을 초과; 타임아웃; 제한 시간; délai; \
     tiempo de espera; tiempo límite; tiempo agotado; agotó el tiempo; zeitüberschreitung; zeitlimit; \
     timeout für; zeit*abgelaufen; tempo limite; tempo esgotado; tempo de espera; tempo scaduto; \
     tempo massimo; таймаут; тайм-аут; время ожидания; превышено время; истекло время; limit czasu; \
     przekroczono czas; time-out; zaman aşımı; hết thời gian";

/// The connection, or none.
pub(in crate::classify) const NETWORK: &str = "\
     积极拒绝; 拒绝连接; 无法连接; 强迫关闭; 连接失败; 连接被; 连接已; 连接中断; 网络错误; 网络异常; 无法解析; 無法連; 連線; 接続; ネットワーク; 강제로 끊; \
     연결이 {거부,끊,재설정,닫}; 연결할 수 없; 연결하지 못; 연결 실패; 연결에 실패; 네트워크; verbindung*{verweiger,abgelehnt,getrennt,\
     abgebrochen,geschlossen,unterbrochen,zurückgesetzt,fehlgeschlagen}; keine verbindung; netzwerkfehler; \
     nicht erreichbar; connexion*{refusée,interrompue,fermée,perdue,impossible,échoué,réinitialisée}; \
     connexion existante; erreur réseau; conexión*{rechazada,cerrada,interrumpida,perdida,restablecida}; \
     no se pudo*conectar; no se puede conectar; error de red; \
     conexão*{recusada,fechada,perdida,redefinida}; não foi possível conectar; erro de rede; \
     connessione*{rifiutata,chiusa,interrotta,persa,fallita}; errore di rete; подключени; соединени; \
     ошибка сети; połączeni*{odrzuc,przerwa,zamkn}";

/// Not now.
pub(in crate::classify) const UNAVAILABLE: &str = "\
     稍后再试; 稍后重试; 稍後; 暂时不可用; 服务不可用; 正在维护; しばらく; 利用できません; 後でもう一度; 잠시 후; 일시적; 나중에 다시; 이용할 수 없; \
     nicht verfügbar; später erneut; indisponible; plus tard; no disponible; más tarde; indisponível; \
     mais tarde; non disponibile; più tardi; недоступ; {попробуйте,попытку} позже";

/// The server's own fault.
pub(in crate::classify) const SERVER_ERROR: &str = "\
     内部错误; 內部錯誤; 服务器错误; 服务器内部; 服务异常; 系统异常; 系统错误; 内部エラー; サーバーエラー; 내부 오류; 서버 오류; 서버 에러; 내부 서버; \
     erreur {interne,serveur,du serveur}; interner {fehler,server}; serverfehler; error interno; \
     error del servidor; erro interno; erro {no,do} servidor; errore interno; errore del server; \
     внутренняя ошибка; ошибка сервера";

/// A request that has to change.
pub(in crate::classify) const BAD_REQUEST: &str = "\
     参数; 參數; パラメータ; 매개변수; 파라미터; 잘못된 요청; 유효하지 않; ungültig; invalide; inválid; non valid; неверн; \
     недопустим; некорректн";

/// Going too fast.
pub(in crate::classify) const RATE: &str = "\
     频率; 频繁; 频次; 速率; 限流; 并发; 请求过多; 請求過多; 請求次數; 速度太快; 过快; レート制限; レートリミット; リクエストが多; 回数制限; 요청이 너무; 요청 한도; \
     요청 제한; 요청 횟수; 너무 많은 요청; 속도 제한; 호출 한도; zu viele {anfragen,anforderungen}; ratenbegrenzung; \
     anfragelimit; trop de {requ,demandes}; limite de {débit,requ}; demasiadas {solicitudes,peticiones}; \
     límite de {solicitudes,peticiones,velocidad,tasa}; muitas {solicita,requisi}; \
     limite de {solicita,taxa}; troppe richieste; limite di richieste; слишком много запросов; \
     лимит запросов; частота запросов; limit*żądań; zbyt wiele żądań; te veel verzoeken; çok fazla istek; \
     quá nhiều yêu cầu; terlalu banyak permintaan";

/// What is left, owed or topped up: about an allowance in any sentence.
pub(in crate::classify) const NO_MONEY: &str = "\
     余额; 餘額; 欠费; 欠款; 额度; 充值; 残高; クレジットが不足; 크레딧; 잔액";

/// Money and credits that are gone.
pub(in crate::classify) const SPENT: &str = "\
     余额不足; 餘額不足; 余额已用; 余额耗尽; 欠费; 欠款; 额度不足; 充值; 资源包; 残高; クレジットが不足; 크레딧; 잔액; \
     saldo {insuficiente,insufficiente,agotado}; guthaben; solde insuffisant; \
     crédits {insuffisants,épuisés}; créditos {insuficientes,agotados,esgotados}; credito insufficiente; \
     недостаточно средств";

/// A period that ends by itself.
pub(in crate::classify) const WINDOW: &str = "\
     次/天; 使用上限; 每日; 每天; 每周; 每月; 今日; 当日; 本月; 小时的; 1日あたり; 1日の; 本日; 일일; 하루; 오늘; pro tag; tageslimit; täglich; \
     por día; diario; diaria; por dia; diário; diária; par jour; quotidien; journali; al giorno; \
     giornalier; в день; суточн; дневн";

/// An allowance that is used up.
pub(in crate::classify) const USED_UP: &str = "\
     额度已用; 额度已耗尽; 额度用完; 额度用尽; 配额已用; 配额已耗尽; 用量已达上限; 할당량을 모두; 할당량이 소진; kontingent*{erschöpft,aufgebraucht}; \
     quota*{épuisé,agotad,esgotad,esaurit}";

/// The answer cannot be used.
pub(in crate::classify) const BAD_OUTPUT: &str = "\
     为空; 空响应; 空回复; 返回空; 空の応答; 応答が空; 빈 응답; leere antwort; réponse vide; respuesta vacía; resposta vazia; \
     risposta vuota; пустой ответ";
