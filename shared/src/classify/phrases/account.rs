//! Who asks, what they may do, and what the business allows.

/// The business says no.
pub(in crate::classify) const BUSINESS_SAYS_NO: &str = "\
     card was declined; card has been declined; card*declined; payment*declined; declined by; \
     insufficient funds; insufficient inventory; inventory*not available; not enough inventory; \
     blacklist rule; unknown destination; no longer in service; recipient address rejected; user unknown; \
     mailbox unavailable; mailbox full; unreachable destination; landline; out of stock; sold out; \
     not enough stock; insufficient stock; not refundable; refund*window; failed business validation; \
     business rule; business validation; business logic; custom validation; *field_custom_validation; \
     violates business; order has*been; order*cannot be; invoice*cannot be; invoice*already; \
     subscription*cancel; card has expired; card*expired; expired card; security code is incorrect; \
     3d secure; customer*blocked; do not honor; exceeds the*maximum*allowed amount; exceeds*balance; \
     exceeds available; amount exceeds; refund*exceed; unsubscribed recipient; opted out; is archived; \
     archived so is read-only; was archived; duplicate transaction; status is a duplicate; \
     approval required; requires approval; not eligible; ineligible; *duplicates_detected; \
     use one of these records; may not be edited; period is closed; closed accounting period; \
     account is closed; account closed; account is frozen; kyc; minimum order; quantity*not available; \
     not available for sale; bank account*closed; required status check; protected branch; \
     review*required; at least*approving review; pull request already exists; not mergeable; \
     transfer limit; withdrawal limit; slot*no longer available; no longer available for booking; \
     fully booked; past the deadline; inactive user; not allowed*state; invalid state transition; \
     cannot transition; transition*not allowed; invalid transition; transition is not valid; \
     in its current state; in the current state; amount must be at least; below the minimum; fraudulent; \
     suspected fraud; sanctions; rule violations; not accepting orders; store is closed; already {been ,\
     }{refunded,captured,paid,cancelled,canceled,shipped,processed,completed,closed,fulfilled,delivered,\
     submitted,approved,voided,redeemed,settled,archived,merged,published,reversed,returned}; \
     cannot {be cancelled,be canceled,be refunded,be voided,be captured,be shipped,cancel,refund,void,\
     publish over}; {recipient,mailbox,email account,email address,phone number,\
     destination number}~{does not exist,not exist,unknown,rejected,unavailable,disabled,full}; \
     refused by~{issuer,bank}; exceeds the allowed {limit,amount}; \
     {refund,return,cancellation}~{period,window}";

/// A caller whom the server does not know, or does not know any more.
pub(in crate::classify) const UNKNOWN_CALLER: &str = "\
     invalid*api key; invalid*api_key; invalid*api-key; incorrect api key; invalid x-api-key; \
     api key not valid; api key is invalid; api key*expired; api key*not found; api key*revoked; \
     api key*leaked; api key*missing; missing*api key; missing api; no api key; no api_key; \
     *api_key client option must be set; api key must be set; did not find*api_key; api key is required; \
     provide*api key; api_key*environment variable; api key*environment variable; *_api_key is not set; \
     invalid*subscription key; authentication*failed; failed to authenticate; authentication header; \
     authentication error; *authenticationerror; authentication required; authentication credentials; \
     could not resolve authentication; not authenticated; unauthenticated; invalid authentication; \
     invalid*credential; bad credentials; credential*expired; credential*not found; credentials*not found; \
     *default_credentials; default credentials; application_default_credentials; \
     unable to locate credentials; could not load*credentials; no credentials; missing credentials; \
     credentials were not; *nocredentialserror; *defaultcredentialserror; token*expired; token*revoked; \
     invalid bearer; bearer token; missing*token; jwt expired; invalid_grant; invalid_auth; not_authed; \
     token_revoked; account_inactive; expired_token; refresh token; reauthenticate; re-authenticate; \
     please run /login; please log in; please login; login required; not logged in; sign in again; \
     access token; security token included in the request; signature we calculated; \
     password authentication failed; access denied for user; login failed for user; noauth; wrongpass; \
     session expired; session*expired; cookie auth credentials; invalid username or password; \
     api key provided; invalid signature; publickey; no authorization; invalid authorization; \
     could not validate credentials; credentials*rejected; api key*disabled; api key*deactivated; \
     wrong api key; security token*invalid; security token*expired; oauth*expired; oauth*revoked; \
     jwt malformed; invalid jwt; sso session; unauthorised; invalid {api ,access ,auth ,authentication ,\
     bearer ,refresh ,session ,oauth ,user ,id ,security ,jwt ,or expired ,refresh_,access_,id_,}token|; \
     invalid~ token|; token {is invalid,is not valid,was invalid,not recognized}; \
     token~{is invalid,was invalid}; token invalid; {missing,no ,invalid,incorrect,wrong,bad,expired,\
     revoked,malformed,unrecognized,rejected}~{api key,api-key,apikey,api_key,access key,secret key,\
     client secret,credential,authorization,auth token,access token,bearer token,password}; {api key,\
     api-key,apikey,api_key,access key,secret key,client secret,credential,authorization,auth token,\
     access token,bearer token,password}~{missing,invalid,incorrect,wrong,expired,revoked,not valid,\
     not found,rejected,disabled,deactivated,required,malformed,not set,not provided,leaked}; \
     {could not,cannot,failed to,unable to}~authenticate; aadsts; secret~expired; \
     token {seems,looks,appears}~invalid; reauthenticat; re-authenticat; \
     credentials~{didn't work,don't match,do not match,mismatch}; pg_hba; \
     {username,user name,login,password}~{not accepted,rejected,incorrect,mismatch}";

/// What only somebody who logs in again can mend, whichever plugin reports it.
pub(in crate::classify) const LOG_IN_AGAIN: &str = "\
     must be {signed,logged} in; \
     reauthenticat; re-authenticat; application-default login; please run /login; log in again; \
     login again; sign in again";

/// A known caller who may not do this.
pub(in crate::classify) const NOT_ALLOWED: &str = "\
     permission denied; permission '*denied; permission_denied; (permissiondenied); lacks the required; \
     access denied; *accessdenied; not authorized to; not authorised to; unauthorized to; \
     insufficient permission; insufficient privilege; missing permission; missing_scope; missing scope; \
     insufficient*scope; does not have*access; do not have*access; don't have*access; \
     do not have permission; does not have permission; don't have permission; no permission; \
     not have the required; not permitted to; operation not permitted; not allowed to; forbidden; \
     location is not supported; country, region, or territory not supported; region*not supported; \
     not available in your*region; not available in your country; has not been used in project; \
     api*is disabled; organization has been disabled; account*disabled; account*suspended; \
     account has been; resource not accessible by; verify your organization; must be verified; \
     just a moment; attention required; cloudflare ray; you have been blocked; ip address*not allowed; \
     read-only; only authorized for use; requires admin; not enabled for; unsupported_country; \
     explicit deny; denied by*policy; allowlist; whitelisted; entitlement; not entitled; \
     insufficient rights; not {a,the} {member,participant,collaborator,owner}; not_a_member; not {in,on} {channel,team,\
     workspace}; not_in_{channel,team,workspace}; admin*approval; blocked by*administrator; access to*restricted; \
     account may have been revoked; {require,requires,need,needs,lack,lacks,lacking,missing,insufficient,\
     without}~{permission,privilege,scope,access rights,entitlement}; \
     {role,permission,privilege,scope} required; command denied; denied to user; \
     not {in,on} the {whitelist,allowlist}; {access,request,operation,action}~{denied,not allowed,\
     not permitted,prohibited}; not {subscribed,licensed,entitled,authorized,authorised} {to,for}; \
     {you,user,users,key,account,plan,bots,project}~cannot use; not have authorization; authorization~failed; not been {submitted,granted,approved}; \
     {access,approval}~{pending,not granted,not approved}; *authorizationfailed; *unauthorizedaccess; \
     eacces|; eperm|; erofs|";
