//! Machine-readable names, squeezed to lower-case letters and digits, that providers give to their errors.
//!
//! Two tables, because codes differ in weight: a *specific* code decides on its own, while a *general* one
//! (`invalid_request_error`, `RESOURCE_EXHAUSTED`) covers many causes and yields to a clear sentence next to it.

use super::rules::{Rule, rule};
use crate::failure::FailureClass as C;

/// How a generation ended, where that is a failure.
pub(super) const STOPS: &[Rule] = &[
    rule(C::Refusal, &["refusal"]),
    rule(C::ContextOverflow, &["modelcontextwindowexceeded; contextlengthexceeded; modellength"]),
    rule(
        C::ContentPolicy,
        &["contentfilter*; safety; prohibitedcontent; blocklist; spii; recitation; imagesafety; \
           sensitive; guardrail*; imageprohibitedcontent; modelarmor; contentpolicy*; blockedbysafety"],
    ),
    rule(
        C::BadOutput,
        &["length; maxtokens; maxoutputtokens; malformedfunctioncall; unexpectedtoolcall; \
           toomanytoolcalls; malformedtoolcall; malformedmodeloutput; malformedtooluse; \
           invalidtoolcall; malformedresponse; missingthoughtsignature; language"],
    ),
    rule(C::Overloaded, &["insufficientsystemresource"]),
    rule(C::ServerError, &["networkerror"]),
];

/// Codes that mean one thing.
pub(super) const SPECIFIC: &[Rule] = &[
    rule(
        C::BusinessRule,
        &["carddecline*; carderror; instrumentdeclined; insufficientfunds; expiredcard; incorrectcvc; \
           fieldcustomvalidationexception; duplicatesdetected; outofstock; soldout; *alreadyrefunded; \
           *alreadycaptured; isarchived; balanceinsufficient; donothonor; transactionrefused; \
           payeraccountrestricted; cartlocked; ordernotapproved; capturestatusnotvalid; compliance*; \
           maxnumberofpaymentattemptsexceeded; userblocked; paymentintentunexpectedstate; \
           authenticationrequired; processingrestricted; accountclosed; businessvalidation*; \
           duplicateinvoiceid; orderalreadycompleted; alreadycheckedin; insufficientinventory; \
           inventoryunavailable; businessrule*"],
    ),
    rule(
        C::LockTimeout,
        &["ora00054; ora30006; ora04021; mysql1205; mssql1222; locktimeout; 55p03; locknotavailable; \
           sqlitebusy*; sqlitelocked*; unabletolockrow; errlockwaittimeout; lockwaittimeout*; \
           erlockwaittimeout; lockacquisitiontimeout; locked; ora00054; lockunavailable; \
           resourcelocked; lockerror; locknot*; cannotacquirelock*; pessimisticlock*; ebusy"],
    ),
    rule(
        C::Conflict,
        &["ora00060; ora08177; ora01555; mysql1213; mssql1205; 40001; 40p01; serializationfailure; \
           deadlockdetected; deadlock; errlockdeadlock; erlockdeadlock; transactionconflict*; \
           writeconflict*; optimisticlock*; conflicterror; editconflict; idempotencykeyinuse; \
           resourceversionconflict; concurrentmodification*; transactioncanceledexception; \
           staleobject*; versionconflict*; versionconflictengineexception; idempotencyerror; \
           operationaborted; concurrentupdate*; mergeconflict; optimisticconcurrency*; etagmismatch; \
           revisionconflict; transactionaborted"],
    ),
    rule(
        C::ContextOverflow,
        &[
            "contextlengthexceeded; contextwindowexceeded*; contextwindowerror; modelcontextwindowexceeded; requesttoolarge; \
           toomanyprompttokens; exceedcontextsizeerror; contextlimitexceeded; inputtoolong; \
           prompttoolong; payloadtoolarge; requestentitytoolarge; contextoverflow; \
           maxcontextlengthexceeded; tokenlimitexceeded; inputtokenslimitexceeded; \
           promptlengthexceeded; inputlengthexceeded; requestbodytoolarge; entitytoolarge; \
           messagetoolong",
        ],
    ),
    rule(
        C::ContentPolicy,
        &["contentfilter*; contentpolicy*; *unsafegeneration; *unsafecontent; *unsafeprompt; \
           responsibleai*; moderationblocked; datainspectionfailed; contentmoderation*; \
           prohibitedcontent; safetyerror; contentblocked; guardrail*; policyviolation; \
           cyberpolicyviolation; sensitivewordsdetected; contentpolicyviolation*; \
           imagecontentpolicyviolation; promptblocked; blockedpromptexception; jailbreak; \
           inputmoderation*; outputmoderation*; contentsafety*; sexualcontent*"],
    ),
    rule(
        C::BadOutput,
        &["toolusefailed; jsonvalidatefailed; malformedfunctioncall; unexpectedtoolcall; \
           outputparsingfailure; outputparsererror; lengthfinishreasonerror; malformedmodeloutput; \
           modelproducedinvalidcontent; toolcallvalidationfailed; outputparsefailed; invalidmodeloutput"],
    ),
    rule(
        C::ModelUnavailable,
        &["modelnotfound*; deploymentnotfound; modeldecommissioned; modelnotexist; invalidmodel; \
           unsupportedmodel; modelnotavailable; modelnotsupported; modeldeprecated; nosuchmodel; \
           modelnotallowed; invalidmodelname; modelunavailable; modelinvalid; unknownmodel; \
           modelshutdown; modelretired; modelnotactive; modeldisabled; dedicatedendpoint*; \
           endpointnotrunning; endpointnotfound; deploymentnotready"],
    ),
    rule(
        C::Auth,
        &["ora01017; ora28000; ora28001; mysql1045; mysql1698; mssql18456; invalidapikey; \
           incorrectapikey; invalidauth; notauthed; tokenrevoked; tokenexpired; accountinactive; \
           expiredtoken*; unrecognizedclient*; invalidauthenticationtoken; apikeyinvalid; \
           invalidclienttokenid; signaturedoesnotmatch; invalidgrant; noauth; wrongpass; \
           invalidsessionid; invalidcredentials; badcredentials; apikeyexpired; missingapikey; \
           invalidsubscriptionkey; 28p01; 28000; invalidapitoken; credentialsmissing; apikeynotfound; \
           authenticationerror; unauthenticated; invalidaccesstoken; nocredentialserror; \
           expiredaccesstoken; nocredentialproviders; invalidtoken; missingauthentication; \
           invalidaccesskeyid; authenticationfailed; accountdeactivated; refreshtokenreused; \
           tokeninvalidated; invalidclient; autherror; invalidkey; unauthorizedexception; \
           sessionexpired; invalidauthtoken; credentialsexpired; keyrevoked; apikeyrevoked; \
           apikeydisabled; authorizationrequired"],
    ),
    rule(
        C::Permission,
        &["ora01031; mysql1044; mysql1142; mysql1143; mysql1227; missingscope; insufficientpermissions; \
           accessnotconfigured; servicedisabled; accessdeniedexception; consumersuspended; \
           unsupportedcountryregionterritory; 42501; insufficientscope; insufficientprivilege; \
           modelaccessdenied; insufficientaccess*; accesstokenscopeinsufficient; notallowedtokentype; \
           restrictedaction; organizationrestricted; missingpermissions; permissionerror; \
           permissiondeniederror; unauthorizedoperation; ipnotallowed; ekmaccesserror; \
           insufficientpermission"],
    ),
    rule(
        C::Overloaded,
        &["53200; 53300; 53400; 57p03; ora01033; ora01034; ora01089; ora12516; ora12519; ora12520; \
           ora00018; ora00020; mysql1040; mysql1203; mysql1226; mssql40501; mssql40613; mssql40197; \
           mssql10928; mssql10929; overloaded*; engineoverloaded*; servicetiercapacityexceeded; \
           capacityexceeded; serverbusy; modeloverloaded*; nocapacity; modelnotreadyexception; \
           capacityerror; overcapacity; modelnotready; servicebusy; modelloading; \
           modelcapacityexhausted; resourceunavailable; serveroverloaded; insufficientcapacity*; \
           systembusy; backpressure; circuitbreaking*; esrejectedexecution*; rejectedexecution*; \
           emfile; enfile; enomem; queueexceeded; queuefull; outofcapacity; unschedulable; \
           temporarilyoverloaded"],
    ),
    rule(
        C::PartialResponse,
        &["modelstreamerror*; errstreamprematureclose; errincompletechunkedencoding; streamreaderror; \
           streaminterrupted; streamaborted; midstreamerror; incompleteread; chunkedencodingerror"],
    ),
    rule(
        C::Timeout,
        &["ora12170; ora12535; ora01013; mysql3024; mysql1969; modeltimeout*; deadlineexceeded; \
           requesttimeout*; gatewaytimeout; etimedout; esockettimedout; 57014; underrconnecttimeout; \
           underrheaderstimeout; timeouterror; timeout; endpointtimeout; internalerrortimeout; \
           upstreamtimeout; querytimeout; operationtimedout; tasktimedout; apitimeouterror; \
           connecttimeout; readtimeout; operationtimeout; requesttimedout; opentimeout; \
           taskcanceledexception; curleoperationtimedout; timelimitexceeded"],
    ),
    rule(
        C::InvalidRequest,
        &["ora00001; mysql1062; mssql2627; mssql2601; ora00942; ora02291; ora02292; ora01400; ora00904; \
           ora00936; mysql1054; mysql1064; mysql1146; mysql1406; mysql1452; 22001; 22003; 22007; 22008; \
           22p02; 23502; 23503; 23505; 23514; 42601; 42703; 42p01; 42883; 42804; stringabovemaxlength"],
    ),
    rule(
        C::WorkerLost,
        &["workerlosterror; oomkilled; evicted; runtimeexiterror; nodelost; workercrashederror; \
           jobstalled; nodeshutdown; spotinterruption; podevicted; workerdied; workerterminated; \
           heartbeattimeout; messagelocklost; sessionlocklost; abandonedjoberror"],
    ),
    rule(
        C::ToolError,
        &["toolexception; toolerror; *toolresulterror; toolexecutionerror; toolexecutionfailed; \
           mcptoolerror"],
    ),
    rule(
        C::Network,
        &["08000; 08001; 08003; 08004; 08006; 08s01; 57p01; 57p02; ora12541; ora12537; ora12547; \
           ora12560; ora12571; ora03113; ora03114; ora03135; ora12514; mysql2002; mysql2003; mysql2006; \
           mysql2013; mysql2055"],
    ),
    rule(C::ServerError, &["xx000; xx001; xx002; 58000; 58030"]),
];

/// Codes of allowances that do not come back in a minute; `allowance` weighs them against the words.
pub(super) const LIMITS: &[Rule] = &[
    rule(
        C::QuotaExhausted,
        &["insufficientquota; insufficientuserquota; billinghardlimitreached; billingnotactive; \
           insufficientcredit*; insufficientbalance; creditsexhausted; enforcedspendlimitreached; \
           billingerror; exceededbudget; budgetexceeded; budgetexceedederror; arrearage; spendlimit*; \
           spendinglimit*; *freetieronly; usagenotincluded; quotanotenough; preconsumetokenquotafailed; \
           paymentrequired; creditbalancetoolow; monthlyspend*; outofcredits; insufficientcompute; \
           accountoverdue*; billingrequired; notenoughcredits; nocredits; overduepayment; \
           prepaidbillnotenough; billinghardlimit; trialexpired; storagequota*; outofcredit; \
           subscriptionexpired; quotaexhausted; exceededcurrentquotaerror"],
    ),
    rule(
        C::QuotaWindow,
        &["usagelimitreached; dailylimitexceeded*; dailyquota*; overdailylimit; weeklylimit*; daily; \
           *perday*; *perweek*; *permonth*; dailylimit*; monthlylimit*; monthlyquota*; \
           usagelimitexceeded; usagecapexceeded; sessionlimit*"],
    ),
];

/// Codes that cover many causes; they decide only where no sentence does.
pub(super) const GENERAL: &[Rule] = &[
    rule(
        C::RateLimited,
        &["ratelimit*; throttl*; toomanyrequest*; resourceexhausted; provisionedthroughputexceeded*; \
           userratelimitexceeded; requestlimitexceeded; limitrequests; overquerylimit; slowdown; \
           concurrencylimit*; quotaexceeded*; limitexceeded*; concurrentrequests*; tokens; requests; \
           inputtokens; servicequotaexceeded*; callquotaexceeded; limitburstrate; toomanyconcurrent*; \
           bandwidthlimitexceeded; 429"],
    ),
    rule(C::Timeout, &["timeout*; *timeouterror; *timeoutexception"]),
    rule(
        C::Overloaded,
        &["serviceunavailable*; unavailable; temporarilyunavailable; 503; 529; toomanyconnections; \
           53300; 57p03"],
    ),
    rule(
        C::ServerError,
        &["servererror; internalservererror; internalerror*; internal; apierror; \
           internalserverexception; badgateway; backenderror; internalfailure; modelerrorexception; \
           serviceerror; unexpectederror; fatalerror; internalserviceerror; processingerror; \
           upstreamerror; providererror; 500; 502"],
    ),
    rule(
        C::Network,
        &["apiconnectionerror; connectionerror; econn*; enotfound; eaiagain; ehostunreach; enetunreach; \
           epipe; underrsocket"],
    ),
    rule(C::Auth, &["unauthorized; unauthorizederror; 401"]),
    rule(C::Permission, &["permissiondenied; accessdenied; forbidden; 403"]),
    rule(
        C::Conflict,
        &["conflict; conditionalcheckfailed*; aborted; resourceconflict*; alreadyexists; \
           preconditionfailed"],
    ),
    rule(
        C::InvalidRequest,
        &["invalidrequest*; invalidargument; validation*; badrequest*; unsupportedparameter; \
           missingrequired*; invalidvalue; invalidtype; *validationfailed; *validationerror; \
           baduserinput; unprocessableentity*; unsupportedvalue; invalidparameter*; invalidschema; \
           failedprecondition; notfounderror; notfound; resourcenotfound*; undefinedcolumn; \
           undefinedtable; syntaxerror; invalidinput*; malformed*; unknownparameter; outofrange; \
           *notfound; unimplemented; methodnotallowed; 400; 404; 422; 32600; 32601; 32602; 32700"],
    ),
];

/// Word stems in the names of errors and codes, for when nothing else spoke. The more peculiar ones come first.
pub(super) const STEMS: &[Rule] = &[
    // Before locks, whose stem it ends with.
    rule(C::Permission, &["*blocked"]),
    rule(
        C::LockTimeout,
        &["*locktimeout*; *lockwait*; *leasealready*; *leaseid*; *acquirelock*; *locked; \
           *pessimisticlock*"],
    ),
    rule(
        C::WorkerLost,
        &["*rebalance*; *illegalgeneration*; *unknownmember*; *fenced*; *workerlost*; *killed*; \
           *nodelost; *preempt*; *evicted; *enginedead*; *processpool; *workerdied*; *heartbeatexpired"],
    ),
    rule(
        C::QuotaExhausted,
        &["*insufficientquota*; *insufficientcredit*; *insufficientbalance*; *budgetexceeded*; \
           *outofcredit*; *spendlimit*; *arrear*; *vcpulimit*; *instancelimit*; *addresslimit*; *volumelimit*; \
           *bucketlimit*; *seatlimit*; *storagelimit*; *licenselimit*; *planlimit*"],
    ),
    rule(C::Overloaded, &["*memorylimit*"]),
    rule(C::InvalidRequest, &["*sizelimit*; *lengthlimit*"]),
    rule(
        C::RateLimited,
        &[
            "*ratelimit*; *throttl*; *toomanyrequest*; *maxconcurrent*; *toomanyconcurrent*; *ratetoolarge*; *floodwait*; *priorrequest*; \
           *limitexceeded*; *limitreached*",
        ],
    ),
    rule(
        C::ModelUnavailable,
        &["*modelnot*; *nosuchmodel*; *unsupportedmodel*; *unknownmodel*; *invalidmodel*"],
    ),
    rule(
        C::ContextOverflow,
        &["*contextlength*; *contextwindow*; *toolarge*; *tokenlimit*; *prompttoolong*; *inputtoolong*"],
    ),
    rule(C::ContentPolicy, &["*contentpolicy*; *contentfilter*; *moderation*"]),
    rule(
        C::Permission,
        &["*permission*; *accessdenied*; *notauthorized*; *authorizationfail*; *authorizationerror; \
           *forbidden*; *refererblocked; *optinrequired; *unauthorizedaccess*; *unauthorizedoperation; \
           *privilege*; *accountisdisabled"],
    ),
    rule(
        C::Auth,
        &["*authentication*; *authfail*; *autherror; *invalidtoken*; *tokenexpired*; *expiredtoken*; \
           *credential*; *signature*; *keyinvalid; *keyexpired; *loginrequired; *requestexpired; \
           *unauthorized*; *apikey*"],
    ),
    rule(
        C::Overloaded,
        &["*overload*; *capacity*; *serverbusy*; *notenoughreplicas*; *leadernotavailable*; \
           *coordinatornotavailable*; *rejectedexecution*; *toomanyconnection*; *unavailable*; \
           *toomany*"],
    ),
    // 32001: how MCP's clients say that a tool's server did not answer.
    rule(C::Timeout, &["*timeout*; *timedout*; *deadlineexceeded*; *operationcanceled*; 32001"]),
    rule(
        C::Network,
        &["*connectionrefused*; *connectionreset*; *connectionloss*; *connectionfail*; \
           *connectionclosed*; *connectionbad; *connectionnot*; *connectexception; *networkexception*; \
           *networkerror*; *notleader*; *disconnect*; *unknownhost*; *sslexception; *sslerror; \
           *httprequestexception; *socketexception; *brokernotavailable*; *sessionexpired"],
    ),
    rule(
        C::Conflict,
        &["*conflict*; *exists*; *inuseexception; *badversion*; *alreadyowned*; *conditionnotmet; \
           *beingdeleted; *concurrent*; *deadlock*; *serializationfail*; *optimistic*; *stale*; \
           *versionmismatch*; *parametermismatch; *duplicate*; *aborted"],
    ),
    rule(
        C::ServerError,
        &["*internal*; *servicefailure; *serviceexception; *servererror*; *backenderror*; \
           *unexpectederror"],
    ),
    rule(C::BadOutput, &["*jsondecode*; *outputpars*; *malformedresponse"]),
    rule(
        C::InvalidRequest,
        &["*invalid*; *malformed*; *missing*; *illegal*; *notfound*; *nosuch*; *unknowntopic*; \
           *unknowncommand; *unknownfield; *unknownparam*; *outofrange*; *validation*; *badrequest*; \
           *unsupported*; *unprocessable*; *toolong; *nonode; *unimplemented; *notext; *precondition*"],
    ),
];

/// Codes of conflicts with something that stays.
pub(super) const LASTING: &[&str] =
    &["exists", "alreadyowned", "parametermismatch", "duplicate", "23505", "ora00001"];
