//! What failures say in words. All patterns are lower case; see `rules::Phrase` for `*` and `|`.
//!
//! The tables are ordered: a rule further up wins. More peculiar causes come before those whose words turn up everywhere.

use super::rules::{Rule, rule};
use crate::failure::FailureClass as C;

/// Sentences that tell the cause whatever the status and the general code next to them.
pub(super) const TELLING: &[Rule] = &[
    // Before the context: these limits are those of parameters, whatever their words have in common with it.
    rule(
        C::InvalidRequest,
        "maximum allowed number of output tokens; max_tokens is too large; \
         max_output_tokens is too large; supports at most*completion tokens; max_tokens must be; \
         max_completion_tokens*too large; call_id*string too long; tool*string too long; \
         name*string too long; \
         tokens you requested exceed; max_tokens*must be; max_tokens*should be; \
         message larger than max; too many redirects; exceeded*redirects; redirect loop; \
         too many follow-up requests; too many arguments; too many images; too many tools; \
         too many parameters",
    ),
    // Before the context and the filters: a router that has nobody to send the request to names what was asked for, and a rate
    // that is named as such may come with the advice to shorten the prompt.
    rule(
        C::ModelUnavailable,
        "no endpoints found; no endpoints available; no allowed providers; no providers available",
    ),
    rule(C::RateLimited, "would exceed*rate limit; exceed the rate limit for; exceeded rate limit"),
    // Before locks: a deadlock is reported as "found when trying to get lock".
    rule(
        C::Conflict,
        "*deadlock; verklemmung; interbloqueo; interblocage; 死锁; デッドロック; взаимоблокировка; \
         impasse detectado",
    ),
    rule(
        C::LockTimeout,
        "lock wait timeout; lock timeout; *locktimeout; *locknotavailable; lock request time out; \
         could not*obtain*lock; could not*acquire*lock; could not get*lock; unable to acquire*lock; \
         unable to obtain*lock; could not lock; unable to lock; failed to acquire*lock; failed to obtain*lock; \
         cannot acquire*lock; can't acquire*lock; error acquiring*lock; error locking; \
         couldn't*acquire*lock; database is locked; database table is locked; table is locked; \
         database schema is locked; *sqlite_busy; *sqlite_locked; ora-00054; ora-30006; ora-04021; \
         resource busy and acquire; already locked; is locked by; locked by another; waiting for*lock; \
         another*process*lock; *index.lock; *lock file*exists; lock is held; lock*already being held; \
         *elocked; lock*no longer owned; set lock on file; lock held by; holding the*lock; *filelock; \
         lock*could not be acquired; another operation (install/upgrade/rollback) is in progress; \
         another git process; *lockacquisition; unable_to_lock_row; *lockerror; acquire quorum; achieve a quorum; \
         unable to obtain exclusive access; another process is using; being used by another process; \
         lock conflict on; timed out waiting for*lock; acquire*lock*timed out; acquire*lock*timeout; \
         currently locked; lock*timed out; timeout*acquiring*lock; *.lock': file exists; \
         *.lock'. file exists; another api request or stripe process; text file busy; database*locked; \
         lock not acquired; not acquire*lock; attempts to lock; took the lock; lock not available; \
         lock unavailable; resource busy or locked; *ebusy; *acquirelockexception; *pessimisticlock",
    ),
    rule(
        C::Conflict,
        "*serializationfailure; could not serialize; *restart transaction; *transactionretry; retry txn; \
         *writeconflict; write conflict; optimistic lock; *optimisticlock; *staleobject; *staledata; \
         row was updated or deleted by another transaction; object has been modified; \
         has been modified since; has been changed by another; version conflict; *version_conflict; \
         conditional request failed; *conditionalcheckfailed; *transactioncanceled; transaction conflict; \
         *transactionconflict; concurrent update; concurrent modification; *concurrentmodification; \
         *concurrencyexception; edit conflict; too much contention; contention on; same idempotency key; \
         idempotency key; idempotency-key; conflicting*operation; operation*in progress; \
         conflict with another; conflicted with another; cannot lock ref; non-fast-forward; \
         merge conflict; expected to affect 1 row; stale*version; resourceversion; sha*does not match; \
         current transaction is aborted; 40001; 40p01; snapshot too old; \
         record has changed since last read; terminated by other getupdates; ora-00060; ora-08177; \
         *40001; update conflict; updates were rejected; \
         conflict with recovery; read or write conflict; etag*match; precondition failed; \
         modified concurrently; modified by another; updated by another; changed by another; \
         please retry*transaction; transaction can be retried; code = aborted; statuscode.aborted; \
         10 aborted",
    ),
    rule(
        C::WorkerLost,
        "*workerlost; worker exited prematurely; worker*died unexpectedly; *workercrashed; \
         worker*crashed; worker was lost; *oomkilled; oom killed; oom-killed; out-of-memory kill; \
         killing*task*memory; killing*worker*memory; killed*running low on memory; exited with signal 9; \
         exited with signal; signal 9 (sigkill); signal 15 (sigterm); signal: killed; signal sigkill; \
         received sigterm; sent sigkill; heartbeat timeout; missed heartbeat; missed*heartbeat; \
         heartbeat*lost; lost heartbeat; heartbeat*timed out; no heartbeat; *heartbeattimeout; \
         lease*expired; lease*lost; lost the lease; lost*lease; job stalled; stalled more than allowable; \
         missing lock for job; *executorlost; executor*lost; *killedworker; pod*evicted; was evicted; \
         evicted|; preempted; spot interruption; node*notready; container*killed; process*was killed; \
         killed by*signal; terminated by signal; error 137|; exit code 137; exit code: 137; exit status 137; \
         code 137; returned non-zero exit status 137; (exit 137); exit code 143; exit code: 143; \
         zombie*job; *actordied; actor died; actor*dead; worker*disappeared; worker*lost; \
         process pool was terminated abruptly; *brokenprocesspool; task*considered dead; \
         detected as zombie; detected zombie; node was low on resource; *nodedied; lambda*runtime exited; \
         process exited before; exited before completing; runtime exited; \
         worker*terminated; killed worker; *sigkill; heap out of memory; reached heap limit; \
         *outofmemoryerror: java; oom killer; process was terminated; out of memory: killed; \
         *workerterminated; instance*terminated; worker*shutting down; worker*stopped responding; \
         worker*unresponsive; worker is gone; segmentation fault; sigsegv; *workertimeout; \
         worker timeout (pid; \
         instance*interrupted; instance*reclaimed; instance*preempted; spot itn; node shutdown; \
         node was drained; allowed memory size; cannot allocate memory; core dumped; worker*was killed; \
         heartbeat*expired; could not renew lock; failed to renew lock; pod was deleted; \
         pod*was terminated",
    ),
    rule(
        C::ContextOverflow,
        "context length; context window; context limit; context size; *context_length; maximum context; \
         max context; *contextwindow; prompt is too long; prompt too long; input is too long; \
         input too long; too many input tokens; input token count*exceeds; \
         exceeds*maximum number of tokens; exceed*max*tokens allowed; tokens*more than max tokens; \
         exceeds the model's maximum; exceed*maximum input; tokens exceed*limit; too large for model; \
         messages is too long; messages*too long; prompt*exceeds*maximum; exceeds the limit of*tokens; \
         token limit exceeded; exceeds*token limit; exceeded*token limit; exceeds*context; \
         exceed*context; longer than*maximum*token; maximum prompt length; prompt length*exceed; exceed*prompt length; maximum*tokens*however; \
         too many tokens: size limit; too many tokens in; size limit exceeded; number of tokens*exceed; \
         tokens in the prompt*exceed; request exceeds the maximum size; request entity too large; \
         payload too large; request too large; request_too_large; input length*exceed; \
         inputs' tokens*must be; inputs tokens*must; reduce the length of the messages; \
         reduce the length of; requested token count exceeds; \
         range of input length should be; sequence length is longer; input*tokens*max_new_tokens; \
         exceed*n_ctx; *content': string too long; 'input': string too long; messages*string too long; \
         conversation is too long; conversation too long; tokens > *maximum; content length exceeds; \
         max_prompt_tokens; max tokens limit*input; larger than the*context; 上下文; 长度超过; 超出最大; 输入过长; 超过模型; \
         コンテキスト; \
         must have less than*tokens; fewer than*tokens; body too large; message too long; \
         exceeds the available context; text is too long; document is too long; \
         exceeds*maximum request size; tokens*greater than the max",
    ),
    rule(
        C::ContentPolicy,
        "content filter; content_filter; *contentfilter; content management policy; content policy; \
         content_policy; *contentpolicy; content moderation; content exists risk; content safety; \
         safety system; safety filter; safety setting; safety reasons; safety check; blocked by safety; \
         due to safety; blocked*safety; usage policy; usage policies; usage guidelines; violat*policy; \
         violat*policies; violat*guidelines; responsible ai; responsible_ai; *responsibleai; \
         *prohibited_content; prohibited content; sensitive content; sensitive words; \
         inappropriate content; flagged; moderation; guardrail*intervened; blocked by*guardrail; \
         guardrail; blocked by content; output blocked; unsafe content; may contain unsafe; \
         unsafe or sensitive; sensitive information; finish_reason*safety; response was blocked; \
         prompt was blocked; *blockedprompt; blocked*recitation; recitation; reciting; \
         finish_reason is 3; finish_reason is 4; reproduc*copyright; harmful content; *stopcandidate; \
         *datainspection; inspection failed; not allowed by our safety; blockreason; block_reason; csam; \
         jailbreak; 敏感; 不安全; 违规; 风险; 安全审核; 内容审核; \
         disallowed content; nsfw; explicit content; policy violation; content violation; unsafe prompt; \
         unsafe request; protected material; filtered due to",
    ),
    rule(
        C::BadOutput,
        "could not parse llm output; parsing llm output; parse llm output; *outputparser; \
         invalid or incomplete llm output; failed to parse*response from*model; malformed_function_call; \
         *malformed function call; *malformed_tool; invalid json*argument; invalid*tool call argument; \
         tool call*invalid json; tool*arguments*not valid json; arguments*invalid json; \
         failed to parse tool; failed to parse*arguments; invalid tool call; invalid function call; \
         failed to call a function; failed to generate json; failed to validate json; \
         failed*generate*valid json; invalid function arguments; invalid arguments*json; unparsable; \
         unterminated string; not valid json*model; *lengthfinishreason; length limit was reached; \
         output validation; result validation; unexpected model behavior; *unexpectedmodelbehavior; \
         model produced invalid; model did not return; model returned*empty; empty response from*model; \
         returned an empty response; empty response; no object generated; *noobjectgenerated; \
         response did not match schema; did not match*schema; *typevalidationerror; \
         type validation failed; missing 'action; both perform action and give; \
         could not parse response content; model output*must contain; model output error; \
         *jsonparseerror; *ai_jsonparse; could not parse*json; failed to parse*json; error parsing*json; \
         invalid json output; invalid json response; invalid json; hit the output token limit; \
         output token maximum; output token limit; maximum output tokens; max_tokens*reached; \
         finish_reason*length; finish reason*length; finish_reason 'length'; response was truncated; \
         output was truncated; truncated*max_tokens; finished with reason*max_tokens; \
         *unexpected_tool_call; tool call*was not in; attempted to call tool*not in request; \
         unknown tool*model; tried to call*tool*not; no tool call found in*response; \
         expecting property name enclosed; unexpected non-whitespace character after json; \
         unexpected end of json input; expected*json*got; invalid response structure; \
         parser*failed*output; outputs*no generations; no generations; no tool calls found; unavailable tool; *nosuchtool; is not a valid tool; \
         not a valid tool name; didn't return a message; choices=[]; malformed*tool; \
         stop reason*max_tokens; \
         contained no tokens; contained no content; no content in*response; returned no content; \
         no choices; empty completion; malformed response; failed to parse*output; cannot parse*output; \
         could not parse*output; invalid response format; invalid tool arguments",
    ),
    rule(
        C::ToolError,
        "error executing tool; tool execution*failed; tool execution error; tool*execution failed; \
         error calling tool; tool call failed; tool*failed with; failed to execute tool; \
         error running tool; *toolexception; *toolerror; error in tool; *toolinvocation; tool*raised; \
         mcp error -32603; mcp server*error; tool '*' failed; tool returned an error; \
         tool*returned*error; error invoking tool; error while executing tool; tool use error; \
         tool_use_error; plugin*failed; incorrect password error; password*pdf; pdf*password; \
         pdf*encrypted; encrypted*pdf; pdf*decrypt; need to be decrypted; file has not been decrypted; \
         *pdfread; *pdfium; *pdferror; *pdfsyntax; *pdfparse; invalid pdf; pdf*corrupt; corrupt*pdf; \
         pdf*damaged; damaged*pdf; pdf header; eof marker not found; no /root object; pdf structure; \
         pdf processing; pdf conversion; convert*pdf; pdf page; pdf*invalid; *tesseract; ocr failed; \
         trailer*pdf; startxref; xref table; *poppler; pdftotext; page count",
    ),
    rule(
        C::BusinessRule,
        "card was declined; card has been declined; card*declined; payment*declined; declined by; \
         insufficient funds; insufficient inventory; inventory*not available; not enough inventory; \
         blacklist rule; unknown destination; no longer in service; recipient address rejected; \
         user unknown; mailbox unavailable; mailbox full; unreachable destination; landline; \
         out of stock; sold out; not enough stock; insufficient stock; already been refunded; \
         already refunded; already been captured; already captured; already been paid; already paid; \
         already cancelled; already canceled; already been cancelled; already been canceled; \
         already shipped; already been processed; cannot be cancelled; cannot be canceled; \
         cannot be refunded; not refundable; refund*window; failed business validation; business rule; \
         business validation; business logic; custom validation; *field_custom_validation; \
         violates business; order has*been; order*cannot be; invoice*cannot be; invoice*already; \
         subscription*cancel; card has expired; card*expired; expired card; security code is incorrect; \
         3d secure; customer*blocked; do not honor; exceeds the*maximum*allowed amount; exceeds*balance; \
         exceeds available; amount exceeds; refund*exceed; unsubscribed recipient; opted out; \
         is archived; archived so is read-only; was archived; duplicate transaction; \
         status is a duplicate; approval required; requires approval; not eligible; ineligible; \
         *duplicates_detected; use one of these records; may not be edited; period is closed; \
         closed accounting period; account is closed; account closed; account is frozen; kyc; minimum order; quantity*not available; \
         not available for sale; bank account*closed; required status check; protected branch; \
         review*required; at least*approving review; pull request already exists; not mergeable; \
         transfer limit; withdrawal limit; slot*no longer available; no longer available for booking; \
         fully booked; past the deadline; inactive user; not allowed*state; \
         invalid state transition; cannot transition; transition*not allowed; \
         invalid transition; transition is not valid; cannot cancel; cannot be voided; \
         in its current state; in the current state; already completed; already closed; \
         already fulfilled; already delivered; already submitted; already approved; already voided; \
         amount must be at least; below the minimum; fraudulent; suspected fraud; sanctions; \
         rule violations; not accepting orders; store is closed",
    ),
    rule(
        C::Auth,
        "invalid*api key; invalid*api_key; invalid*api-key; incorrect api key; invalid x-api-key; \
         api key not valid; api key is invalid; api key*expired; api key*not found; api key*revoked; \
         api key*leaked; api key*missing; missing*api key; missing api; no api key; no api_key; \
         *api_key client option must be set; api key must be set; did not find*api_key; \
         api key is required; provide*api key; api_key*environment variable; \
         api key*environment variable; *_api_key is not set; invalid*subscription key; \
         authentication*failed; failed to authenticate; authentication header; authentication error; \
         *authenticationerror; authentication required; authentication credentials; \
         could not resolve authentication; not authenticated; unauthenticated; invalid authentication; \
         invalid*credential; bad credentials; credential*expired; credential*not found; \
         credentials*not found; *default_credentials; default credentials; \
         application_default_credentials; unable to locate credentials; could not load*credentials; \
         no credentials; missing credentials; credentials were not; *nocredentialserror; \
         *defaultcredentialserror; token*expired; token*revoked; token*invalid; invalid*token; \
         invalid bearer; bearer token; missing*token; jwt expired; invalid_grant; invalid_auth; \
         not_authed; token_revoked; account_inactive; expired_token; refresh token; reauthenticate; \
         re-authenticate; please run /login; please log in; please login; login required; not logged in; \
         sign in again; access token; security token included in the request; signature we calculated; \
         password authentication failed; access denied for user; login failed for user; noauth; \
         wrongpass; session expired; session*expired; \
         cookie auth credentials; invalid username or password; api key provided; invalid signature; \
         publickey; 令牌; 无效的api; 认证失败; 身份验证; 鉴权; 密钥; \
         no authorization; invalid authorization; could not validate credentials; credentials*rejected; \
         api key*disabled; api key*deactivated; wrong api key; security token*invalid; \
         security token*expired; oauth*expired; oauth*revoked; jwt malformed; invalid jwt; sso session; \
         unauthorised",
    ),
    // A rate that is named as such, even where "high demand" is given as its reason.
    rule(C::RateLimited, "rate limit exceeded; rate limit reached"),
    rule(
        C::Overloaded,
        "database system is starting up; database system is shutting down; database system is in recovery; *overloaded; overload; high demand; at capacity; over capacity; capacity exceeded; \
         capacity constraint; no capacity; insufficient capacity; out of capacity; queue reached; queue limit; \
         model*is currently loading; is loading; model is loading; too busy; server busy; server is busy; \
         currently busy; service is busy; maximum pending requests; queue is full; queue full; high load; \
         heavy load; high traffic; heavy traffic; temporarily unable to handle; loading redis is loading; \
         too many connections; too many clients; remaining connection slots; connection pool exhausted; \
         *queuepool limit; not enough resources; server load; capacity*try again; capacity limit; \
         engine is currently; 负载; 访问量过大; 访问量较大; 饱和; 繁忙; 过载; 混み合; 混雑; sobrecargado; überlastet; surchargé; \
         перегружен; reduce your request; no healthy upstream; no available capacity; 503 slow down; \
         busy*try again; resources*temporarily unavailable; cuda out of memory; \
         no server is available to handle; oom command not allowed; no instances available; \
         scale*cold start; being provisioned; warming up; ready to serve; \
         too many open files; nodes are available:; insufficient cpu; insufficient memory; unschedulable; \
         *circuitbreak; *circuit_breaking; exceeded quota:; *rejectedexecution; *rejected_execution; \
         at maximum capacity; overwhelmed; too much traffic; no workers available; no available workers; \
         all workers are busy; not enough capacity; load shedding; shedding load; peak load; \
         service is starting; server is starting",
    ),
    rule(
        C::ModelUnavailable,
        "model*does not exist; model*not found; model*not exist; model*is not supported; \
         model*not supported; model*not available; model*isn't available; model*decommissioned; \
         model*deprecated; model*has been retired; model*retired; model*end of life; \
         model*end of its life; no such model; unknown model; invalid model; model identifier is invalid; \
         model id*invalid; unsupported model; model*no longer; model*has been shut down; model*removed; \
         model*access*denied; model*unrecognized; cannot find*model; could not find*model; \
         couldn't find*model; not find model; models/* is not found; publisher model; \
         deployment*does not exist; deployment*not found; *deploymentnotfound; *modelnotfound; \
         no available channel; \
         no provider*available; not deployed; model is not loaded; try pulling it; pull model; \
         model*not been deployed; on-demand throughput isn't supported; no healthy deployments for; \
         llm provider not provided; not a valid model; is not a chat model; model*not allowed; \
         model*not accessible; model: claude; model: gpt; engine*not found; 无可用渠道; 模型不存在; 模型*不存在; 不支持该模型; \
         モデルが見つかりません; model_not_found; model is not available; \
         endpoint*not running; endpoint*is paused; endpoint*is stopped; non-serverless; end of its life; \
         as legacy; model*discontinued; model*sunset; model*is disabled; model*not enabled; \
         unrecognized model",
    ),
    rule(
        C::PartialResponse,
        "premature close; *err_stream_premature_close; incomplete chunked read; \
         prematurely closed during; without sending complete message body; payload is not completed; \
         *clientpayload; *incompleteread; incomplete read; *invalidchunklength; *chunkedencoding; \
         *transferencoding; connection broken; stream*disconnected before completion; \
         stream closed before; stream*ended before; stream*ended without; stream*ended unexpectedly; \
         stream*closed unexpectedly; stream*interrupted; stream*terminated; stream*aborted; stream*cut; \
         cancelled mid-stream; mid-stream; mid-response; mid response; midstream; during stream; \
         while streaming; while reading*stream; error reading*body; while reading body; \
         decoding response body; error decoding*body; reading response body; unexpected end of stream; \
         unexpected end of file; unexpected eof|; *unexpectedeof; without sending any chunks; \
         without*finish_reason; without*finish reason; before*message_stop; missing*message_stop; \
         without*terminal; terminal event; no finish reason; body stream; body timeout; *bodytimeout; \
         *body_timeout; err_incomplete_chunked; err_http2_protocol_error; response ended prematurely; \
         ended prematurely; response body*closed; transfer closed with; outstanding read data remaining; \
         content length mismatch; content-length mismatch; *contentlengthmismatch; incomplete response; \
         incomplete message; incomplete stream; partial response; partial message; truncated response; \
         empty stream; *midstreamfallback; stream was reset; stream reset; stream idle; \
         idle timeout waiting for sse; stream stalled; no chunks; no generation chunks; streaming error; \
         error in*stream; upstream*premature; broken stream; stream error; response aborted; response was aborted; \
         received*partial; \
         stream_read; stream read error; error reading stream; response body closed; not closed cleanly; \
         ended mid; cut off mid; curl error 18|; curl: (18); curl error 92|; curl: (92)",
    ),
    rule(
        C::Permission,
        "permission denied; permission '*denied; permission_denied; (permissiondenied); \
         lacks the required; access denied; *accessdenied; \
         not authorized to; not authorised to; unauthorized to; insufficient permission; \
         insufficient privilege; missing permission; missing_scope; missing scope; insufficient*scope; \
         does not have*access; do not have*access; don't have*access; do not have permission; \
         does not have permission; don't have permission; no permission; not have the required; \
         not permitted to; operation not permitted; not allowed to; forbidden; location is not supported; \
         country, region, or territory not supported; region*not supported; not available in your*region; \
         not available in your country; has not been used in project; api*is disabled; \
         organization has been disabled; account*disabled; account*suspended; account has been; \
         resource not accessible by; verify your organization; must be verified; just a moment; \
         attention required; cloudflare ray; you have been blocked; ip address*not allowed; read-only; \
         only authorized for use; requires admin; 权限; 无权; 禁止访问; not enabled for; unsupported_country; \
         explicit deny; denied by*policy; allowlist; whitelisted; entitlement; not entitled; \
         insufficient rights; not a member of; admin*approval; blocked by*administrator; \
         access to*restricted; account may have been revoked",
    ),
];

/// What transports say. Clients print it over every failure, so it counts only where nothing better is known.
pub(super) const TRANSPORT: &[Rule] = &[
    rule(C::Network, LASTING_NETWORK),
    rule(
        C::Timeout,
        "timed out; time out; *timeouterror; *timeout exceeded; timeout of; timeout|; *timedout; \
         *timeoutexception; deadline exceeded; *deadline_exceeded; deadline*expired; \
         canceling statement due to statement timeout; *connecttimeout; *readtimeout; *writetimeout; \
         *pooltimeout; *sockettimeout; *etimedout; *esockettimedout; *econnaborted; \
         *und_err_headers_timeout; *und_err_connect_timeout; *apitimeout; *timelimitexceeded; time limit; \
         errno 110; errno 60; winerror 10060; took too long; a timeout occurred; maximum execution time; \
         max_statement_time; exceeded*maxtimems; operation exceeded time limit; *asynctimeout; 超时; \
         タイムアウト; délai; tiempo de espera; zeitüberschreitung; таймаут; время ожидания; 没有正确答复; \
         request was aborted; operation was aborted; user aborted; signal is aborted; aborterror; \
         execution expired; *opentimeout; curl error 28|; curl: (28); *timed_out; *taskcanceled; \
         task was canceled; deadline was exceeded; did not respond in time; no response within; \
         no response after; gateway time; run time exceeded; 4 deadline",
    ),
    rule(
        C::Network,
        "connection refused; actively refused; *econnrefused; *connectionrefused; connection reset; \
         *econnreset; *connectionreset; connection aborted; *connectionaborted; connection*closed; \
         connection lost; connection error; connection failed; connection failure; connect error; \
         connection attempt failed; connection was forcibly closed; forcibly closed by the remote host; \
         closed the connection; *connectionforced; *connection_forced; *nobrokersavailable; *brokernotavailable; *disconnected; \
         remote end closed; *remotedisconnected; other side closed; socket hang up; socket closed; \
         broken pipe; *epipe; *enotfound; *eai_again; getaddrinfo; name or service not known; \
         name resolution; nodename nor servname; no such host; could not resolve; couldn't resolve; \
         cannot resolve; failed to lookup address; dns error; dns lookup; dns resolution; *unknownhost; \
         *hostunreachable; *ehostunreach; *enetunreach; *enetdown; *enonet; network is unreachable; \
         no route to host; network error; network request failed; network connection; network failure; \
         *err_network; *err_internet_disconnected; net::err_; terminated the handshake; *sslhandshake; \
         fetch failed; failed to fetch; load failed; cannot connect; can't connect; could not connect; \
         couldn't connect; unable to connect; failed to connect; failed to establish; \
         error sending request; tls handshake; ssl handshake; handshake fail; *sslerror; *ssleoferror; \
         ssl_error; [ssl; ssl connection; ssl routines; tls connection; bad record mac; \
         eof occurred in violation; sslv3 alert; *apiconnectionerror; *connectionerror; *connecterror; \
         *clientconnector; *newconnectionerror; *maxretryerror; max retries exceeded; *proxyerror; \
         tunnel connection failed; *protocolerror; *readerror; *writeerror; *socketexception; \
         *networkerror; goaway; rst_stream; stream removed; eof|; errno 104; errno 111; errno 32; \
         errno 113; errno 101; errno -2; errno -3; errno 11001; winerror 10054; winerror 10053; \
         winerror 10061; *und_err_socket; unable to make request; \
         server closed the connection unexpectedly; server has gone away; terminating connection; \
         lost connection; no connection; not connected; *serverselection; transport closed; \
         channel closed; *transporterror; communications link failure; 积极拒绝; 无法连接; 强迫关闭; 连接失败; 连接被拒绝; \
         网络错误; 网络异常; verbindung verweigert; keine verbindung; connexion refusée; connexion existante; \
         conexión rechazada; 接続; подключение; соединение; \
         closed network connection; closed idle connection; server misbehaving; empty reply; \
         recv failure; send failure; failed to open tcp; end of file reached; failed to respond; \
         *nohttpresponse; host is down; network is down; cannot assign requested address; syscall error; \
         administrator command; transport connection; while sending the request; curl error 6|; \
         curl error 7|; curl error 35|; curl error 52|; curl error 55|; curl error 56|; curl: (6); \
         curl: (7); curl: (35); curl: (52); curl: (55); curl: (56); dial tcp; unreachable|; nxdomain; \
         servfail; reset by peer; *connectionfailed; *connectfailed; websocket*closed; websocket error; \
         errno 54; errno 61; wsarecv; transport is closing",
    ),
    rule(C::PartialResponse, "typeerror: terminated"),
    rule(
        C::Overloaded,
        "service unavailable; *serviceunavailable; temporarily unavailable; currently unavailable; \
         unavailable; try again later; resource temporarily; not available right now; service is down; \
         14 unavailable",
    ),
    rule(
        C::ServerError,
        "internal server error; *internalservererror; internal error; clusterdown; readonly you can't write; bad gateway; server error; \
         *servererror; server had an error; unexpected error occurred*server; the server encountered; \
         error occurred while processing your request; error processing your request; upstream error; \
         application error; *internalerror; 500 internal; unable to process your request; \
         unexpected condition; *internalfailure; backend error; process has terminated; 内部错误; 服务器错误; \
         服务异常; erreur interne; interner fehler; error interno; 内部エラー; \
         misconf; masterdown; noreplicas; on our end; on our side; server-side issue; \
         unhandled exception; 13 internal; code = internal; statuscode.internal",
    ),
    rule(
        C::ToolError,
        "error executing command; command failed with exit; command failed; command exited with; \
         exited with code; exit status 1; non-zero exit; browser*closed; target*closed; page crashed; \
         *playwright; *selenium; selector*not found; *nosuchelement; execution context was destroyed; \
         net::err_; no such file or directory; *enoent; *filenotfound; *isadirectory; is a directory; \
         not a git repository; *modulenotfounderror; no module named; command not found; \
         cannot identify image file; *zerodivision; no space left on device; string to replace not found; \
         old_string; invalid literal for int; \
         stale element; click intercepted; strict mode violation; not interactable",
    ),
    // Without a status nobody rejected a request: it is an answer that did not fit its schema.
    rule(C::BadOutput, "validation error for; validation errors for"),
    rule(
        C::InvalidRequest,
        "invalid request; invalid_request; bad request; *badrequest; *invalidrequest; \
         *validationexception; validation error; *validationerror; validation failed; is required; \
         required field; missing required; must be one of; not of type; must be a; must be of type; \
         unsupported parameter; unknown parameter; unrecognized request argument; invalid value; \
         invalid type; invalid parameter; unexpected keyword argument; unprocessable; \
         *unprocessableentity; does not exist; syntax error; *syntaxerror; *undefinedcolumn; \
         *undefinedtable; no such column; no such table; unknown column; violates*constraint; \
         constraint failed; duplicate entry; duplicate key; *integrityerror; *programmingerror; \
         data too long; invalid input syntax; invalid argument; *invalidargument; malformed; not found; \
         *notfound; method not allowed; unsupported; not supported; wrongtype; schema*invalid; \
         invalid schema; mcp error -32602; mcp error -32601; invalid params; method not found; \
         extra inputs are not permitted to; operation not permitted; too short; too small; too many values; exceeds the maximum; \
         out of range; 参数; パラメータ; invalid; \
         cannot be empty; must not be empty; non-empty; unknown field; unexpected field; \
         additional properties; out of supported range; type mismatch; not a valid; unrecognized",
    ),
];

/// Failures of a connection that repeat until somebody changes a certificate or an address.
pub(super) const LASTING_NETWORK: &str = "certificate verify failed; *certificate_verify_failed; self signed certificate; \
         self-signed certificate; *self_signed_cert; unable to get local issuer; unable to get issuer; \
         unable to verify the first certificate; *unable_to_verify_leaf; certificate has expired; \
         certificate*expired; *cert_has_expired; certificate signed by unknown authority; x509:; \
         hostname mismatch; hostname/ip does not match; *err_tls_cert_altname_invalid; \
         invalid peer certificate; unknownissuer; certificate is not trusted; certificate*not valid; \
         pkix path building failed; *sslcertverification; wrong version number; wrong_version_number; \
         unsupported protocol; invalid url; no host supplied; unknown url type; *missingschema; \
         *invalidschema; bad certificate; unknown ca";

/// A conflict with something that stays: the same request meets it again.
pub(super) const LASTING_CONFLICT: &str = "already exists; already in use; already been taken; duplicate; different parameters; \
         different request; different payload; same idempotency key*different; \
         keys for idempotent requests can only be used; merge conflict; non-fast-forward; \
         updates were rejected; reuse*idempotency; idempotency*reuse; does not match; \
         terminated by other getupdates; not mergeable; sha wasn't supplied";

/// A tool's failure that passes by itself; the rest of them repeats with the same input.
pub(super) const PASSING_TOOL_ERROR: &str = "try again; temporar; timed out; timeout; unavailable; browser*closed; target*closed; \
         page crashed; connection; network; busy; execution context was destroyed; internal error; \
         -32603; crashed; econn; overloaded; 500|; 502|; 503|; rate limit";

/// An answer that hit its own limit.
pub(super) const OUT_OF_TOKENS: &str =
    "length limit was reached; max_tokens; output token limit; *lengthfinishreason";

/// What a 404 has to speak of to be about a model and not about a path.
pub(super) const MODEL: &str = "model; deployment; engine";

/// How a model says no, in the first words of an answer.
pub(super) const REFUSING: &str = "i can't assist; i cannot assist; i can't help with; i cannot help with; i'm unable to; \
         i am unable to; i'm not able to; i won't; i can't provide; i cannot provide; i can't comply; \
         i cannot comply; i'm sorry, but i can; i'm sorry, i can; sorry, but i can; i must decline; \
         i can't create; i cannot create; i can't fulfill; i cannot fulfill; i can't continue; \
         model refused; declined to answer; declined to respond; *refusal";

/// Weak words and names of exceptions, for when nothing else spoke.
pub(super) const NAMES: &[Rule] = &[
    rule(C::RateLimited, "*ratelimiterror; too many"),
    rule(C::Auth, "*authenticationerror; unauthorized"),
    rule(C::Permission, "*permissiondenied; blocked"),
    rule(
        C::BadOutput,
        "expecting value: line; *jsondecodeerror; in json at position; is not valid json; failed to parse",
    ),
];
