//! What servers, and the transports to them, say of their health. Clients print the words of transports over every failure.

/// More work than the server can take.
pub(in crate::classify) const OVERLOADED: &str = "\
     database system is starting up; database system is shutting down; database system is in recovery; \
     *overloaded; overload; high demand; at capacity; over capacity; capacity exceeded; \
     capacity constraint; no capacity; insufficient capacity; out of capacity; queue reached; queue limit; \
     model*is currently loading; is loading; model is loading; too busy; server busy; server is busy; \
     currently busy; service is busy; maximum pending requests; queue is full; queue full; too many parts; memory limit~exceeded; high load; \
     heavy load; high traffic; heavy traffic; temporarily unable to handle; loading redis is loading; \
     too many connections; too many~connections; too many clients; remaining connection slots; connection pool exhausted; \
     *queuepool limit; not enough resources; server load; capacity*try again; capacity limit; \
     engine is currently; reduce your request; no healthy upstream; no available capacity; 503 slow down; \
     busy*try again; resources*temporarily unavailable; cuda out of memory; \
     no server is available to handle; oom command not allowed; no instances available; scale*cold start; \
     being provisioned; warming up; ready to serve; too many open files; nodes are available:; \
     insufficient cpu; insufficient memory; unschedulable; *circuitbreak; *circuit_breaking; \
     exceeded quota:; *rejectedexecution; *rejected_execution; at maximum capacity; overwhelmed; \
     too much traffic; no workers available; no available workers; all workers are busy; \
     not enough capacity; load shedding; shedding load; peak load; service is starting; \
     server is starting; {server,servers,service,services,system,model,models,engine,node,cluster,backend,\
     peers,provider,site,upstream,gateway,database}~{busy,overloaded,at capacity,saturated,overwhelmed,\
     under heavy load}; too many {simultaneous,concurrent} {queries,sessions,jobs}; \
     too many {pending,queued}; {insufficient,not enough,no ,limited,out of,sufficient}~capacity; \
     not {enough,sufficient}~{workers,gpus,instances}; no {gpu,gpus,instance,instances,machine,slot,\
     slots}~available; loading the dataset; not ready yet; not yet {accepting,ready,available}; \
     {currently,temporarily,momentarily} unable to";

/// The answer had begun.
pub(in crate::classify) const BROKEN_OFF: &str = "\
     premature close; *err_stream_premature_close; incomplete chunked read; prematurely closed during; \
     without sending complete message body; payload is not completed; *clientpayload; *incompleteread; \
     incomplete read; *invalidchunklength; *chunkedencoding; *transferencoding; connection broken; \
     stream*disconnected before completion; stream closed before; stream*ended before; \
     stream*ended without; stream*ended unexpectedly; stream*closed unexpectedly; stream*interrupted; \
     stream*terminated; stream*aborted; stream*cut; cancelled mid-stream; mid-stream; mid-response; \
     mid response; midstream; during stream; while streaming; while reading*stream; error reading*body; \
     while reading body; decoding response body; error decoding*body; reading response body; \
     unexpected end of stream; unexpected end of file; unexpected eof|; *unexpectedeof; \
     without sending any chunks; without*finish_reason; without*finish reason; before*message_stop; \
     missing*message_stop; without*terminal; terminal event; no finish reason; body stream; body timeout; \
     *bodytimeout; *body_timeout; err_incomplete_chunked; err_http2_protocol_error; \
     response ended prematurely; ended prematurely; response body*closed; transfer closed with; \
     outstanding read data remaining; content length mismatch; content-length mismatch; \
     *contentlengthmismatch; incomplete response; incomplete message; *incompletemessage; message~is incomplete; incomplete stream; partial response; \
     partial message; truncated response; empty stream; *midstreamfallback; stream was reset; \
     stream reset; stream idle; idle timeout waiting for sse; stream stalled; no chunks; \
     no generation chunks; streaming error; error in*stream; upstream*premature; broken stream; \
     stream error; response aborted; response was aborted; received*partial; stream_read; \
     stream read error; error reading stream; response body closed; not closed cleanly; ended mid; \
     cut off mid; curl error 18|; curl: (18); curl error 92|; curl: (92); {stream,response,transfer,\
     download}~{stalled,cut off,cut short,truncated,interrupted,broken off,ended early}; eof~chunk; \
     chunk~eof; {closed,reset,lost,eof,dropped,connection} {mid,midway,halfway}; mid stream";

/// A clock ran out.
pub(in crate::classify) const TIMEOUT: &str = "\
     timed out; time out; *timeouterror; *timeout exceeded; timeout of; timeout|; *timedout; \
     *timeoutexception; deadline exceeded; *deadline_exceeded; deadline*expired; \
     canceling statement due to statement timeout; *connecttimeout; *readtimeout; *writetimeout; \
     *pooltimeout; *sockettimeout; *etimedout; *esockettimedout; *econnaborted; *und_err_headers_timeout; \
     *und_err_connect_timeout; *apitimeout; *timelimitexceeded; time limit; exceeded~{ ms|, milliseconds, seconds, minutes, hours}; errno 110; errno 60; \
     winerror 10060; took too long; a timeout occurred; maximum execution time; max_statement_time; \
     exceeded*maxtimems; operation exceeded time limit; *asynctimeout; request was aborted; \
     operation was aborted; user aborted; signal is aborted; aborterror; execution expired; *opentimeout; \
     curl error 28|; curl: (28); *timed_out; *taskcanceled; task was canceled; deadline was exceeded; \
     did not respond in time; no response within; no response after; gateway time; run time exceeded; \
     4 deadline; timed-out; {exceeded,exceeds,reached,hit}~{timeout,time limit,deadline}; {timeout,\
     deadline,time limit}~{exceeded,reached,expired,elapsed}; no {response,reply,answer}~within; \
     not {respond,complete,finish}~{within,in time}; etime|; execution time~exceeded; unresponsive; \
     not responding; no response received; *ms exceeded; seconds exceeded; exceeded~{second,minute}~limit; \
     *{0,5}s limit";

/// The connection, or none.
pub(in crate::classify) const NETWORK: &str = "\
     connection refused; actively refused; *econnrefused; *connectionrefused; connection reset; \
     *econnreset; *connectionreset; connection aborted; *connectionaborted; connection*closed; \
     connection lost; connection error; connection failed; connection failure; connect error; \
     connection attempt failed; connection was forcibly closed; forcibly closed by the remote host; \
     closed the connection; *connectionforced; *connection_forced; *nobrokersavailable; \
     *brokernotavailable; *disconnected; remote end closed; *remotedisconnected; other side closed; \
     socket hang up; socket closed; broken pipe; *epipe; *eai_again; getaddrinfo; \
     name or service not known; name resolution; nodename nor servname; no such host; could not resolve; \
     couldn't resolve; cannot resolve; failed to lookup address; dns error; dns lookup; dns resolution; \
     *unknownhost; *hostunreachable; *ehostunreach; *enetunreach; *enetdown; *enonet; \
     network is unreachable; no route to host; all mirrors were already tried; network error; network request failed; network connection; \
     network failure; *err_network; *err_internet_disconnected; net::err_; terminated the handshake; \
     *sslhandshake; fetch failed; failed to fetch; load failed; cannot connect; can't connect; \
     could not connect; couldn't connect; unable to connect; failed to connect; failed to establish; \
     error sending request; tls handshake; ssl handshake; handshake fail; *sslerror; *ssleoferror; \
     ssl_error; [ssl; ssl connection; ssl routines; tls connection; bad record mac; \
     eof occurred in violation; sslv3 alert; *apiconnectionerror; *connectionerror; *connecterror; \
     *clientconnector; *newconnectionerror; *maxretryerror; max retries exceeded with url; *proxyerror; \
     tunnel connection failed; *protocolerror; readerror; writeerror; *socketexception; *networkerror; \
     goaway; rst_stream; stream removed; eof|; errno 104; errno 111; errno 32; errno 113; errno 101; \
     errno -2; errno -3; errno 11001; winerror 10054; winerror 10053; winerror 10061; *und_err_socket; \
     unable to make request; server closed the connection unexpectedly; server has gone away; \
     terminating connection; lost connection; no connection; not connected; *serverselection; \
     transport closed; channel closed; *transporterror; communications link failure; \
     closed network connection; closed idle connection; server misbehaving; empty reply; recv failure; \
     send failure; failed to open tcp; end of file reached; failed to respond; *nohttpresponse; \
     host is down; network is down; cannot assign requested address; syscall error; administrator command; \
     transport connection; while sending the request; curl error 6|; curl error 7|; curl error 35|; \
     curl error 52|; curl error 55|; curl error 56|; curl: (6); curl: (7); curl: (35); curl: (52); \
     curl: (55); curl: (56); dial tcp; unreachable|; nxdomain; servfail; reset by peer; *connectionfailed; \
     *connectfailed; websocket*closed; websocket error; errno 54; errno 61; wsarecv; transport is closing; \
     {connection,socket,tcp,tls,ssl,channel,transport,broker,network,websocket}~{closed,reset,refused,\
     aborted,dropped,lost,terminated,interrupted,broken,failure,failed,disconnect,unreachable}; \
     {transport,socket,network,broker} error; {could not,cannot,can't,unable to,failed to}~{establish,\
     be established,reach}; no servers available; receiving end does not exist; enotfound; ehostdown; \
     enetreset; enotconn; eaddrnotavail; eai_; eproto|; curl error 5|; curl: (5); appears to be offline; \
     curl {5,6,7,35,52,55,56}|; hung up unexpectedly; recv error; no listener; connectionloss; \
     nsurlerrordomain";

/// Failures of a connection that repeat until somebody changes a certificate or an address.
pub(in crate::classify) const LASTING_NETWORK: &str = "\
     certificate verify failed; *certificate_verify_failed; self signed certificate; \
     self-signed certificate; *self_signed_cert; unable to get local issuer; unable to get issuer; \
     unable to verify the first certificate; *unable_to_verify_leaf; certificate has expired; \
     certificate*expired; *cert_has_expired; certificate signed by unknown authority; x509:; \
     hostname mismatch; hostname/ip does not match; hostname~not verified; *sslpeerunverified; \
     {first record,record,handshake} does not look like; *err_tls_cert_altname_invalid; \
     invalid peer certificate; unknownissuer; certificate is not trusted; certificate*not valid; \
     pkix path building failed; *sslcertverification; wrong version number; wrong_version_number; \
     unsupported protocol; invalid url; no host supplied; unknown url type; *missingschema; \
     *invalidschema; bad certificate; unknown ca; curl error {51,58,60,77,83,90,91}|; \
     curl: ({51,58,60,77,83,90,91})";

/// Not now.
pub(in crate::classify) const UNAVAILABLE: &str = "\
     service unavailable; *serviceunavailable; temporarily unavailable; currently unavailable; \
     unavailable; try again later; resource temporarily; not available right now; service is down; \
     14 unavailable; emfile|; enfile|; enomem|; enobufs|; eagain|; max number of clients; \
     busy redis is busy; lagged|; replication lag";

/// The server's own fault.
pub(in crate::classify) const SERVER_ERROR: &str = "\
     internal server error; *internalservererror; internal error; clusterdown; readonly you can't write; \
     bad gateway; server error; *servererror; server had an error; unexpected error occurred*server; \
     the server encountered; error occurred while processing your request; error processing your request; \
     upstream error; application error; *internalerror; 500 internal; unable to process your request; \
     unexpected condition; *internalfailure; backend error; process has terminated; misconf; masterdown; \
     noreplicas; on our end; on our side; server-side issue; unhandled exception; 13 internal; \
     code = internal; statuscode.internal; {upstream,downstream,backend}~{request failed,failure,\
     exception}; temporary {system problem,local problem,failure,server error}; system error; \
     exception: internal:; no longer running";
