//! Databases, queues and the processes that work: locks, conflicts, workers that are gone.

/// Two that wait for each other; reported as "found when trying to get lock".
pub(in crate::classify) const DEADLOCK: &str = "\
     *deadlock";

/// Somebody else holds it.
pub(in crate::classify) const LOCKED: &str = "\
     lock wait timeout; lock timeout; *locktimeout; *locknotavailable; lock request time out; \
     could not lock; unable to lock; error acquiring*lock; error locking; database is locked; \
     database table is locked; table is locked; database schema is locked; *sqlite_busy; *sqlite_locked; \
     ora-00054; ora-30006; ora-04021; resource busy and acquire; already locked; is locked by; \
     locked by another; waiting for*lock; another*process*lock; *index.lock; *lock file*exists; \
     lock is held; lock*already being held; *elocked; lock*no longer owned; set lock on file; \
     lock held by; holding the*lock; *filelock; lock*could not be acquired; \
     another operation (install/upgrade/rollback) is in progress; another git process; *lockacquisition; \
     unable_to_lock_row; *lockerror; acquire quorum; achieve a quorum; unable to obtain exclusive access; \
     another process is using; being used by another process; lock conflict on; \
     timed out waiting for*lock; acquire*lock*timed out; acquire*lock*timeout; currently locked; \
     lock*timed out; timeout*acquiring*lock; *.lock': file exists; *.lock'. file exists; \
     another api request or stripe process; text file busy; database*locked; lock not acquired; \
     not acquire*lock; attempts to lock; took the lock; lock not available; lock unavailable; \
     resource busy or locked; *ebusy; *acquirelockexception; *pessimisticlock; {could not,cannot,can't,\
     couldn't,unable to,failed to,failure to,not able to}*{acquire,obtain,get,take,grab,place,set}*{lock,\
     mutex,semaphore}; {timed out,timeout,time out}*{waiting,acquiring,obtaining,acquire,obtain}*{lock,\
     mutex,semaphore, lease}; lock*temporarily unavailable; while lock file; waiters for~lock; lock has not yet been; lock was not granted; {file,state,\
     table,row,record,resource,workspace,repository,job,stack}~is locked; etxtbsy|; enolck|; \
     lock request~{expired,denied,failed}";

/// Two that changed one thing.
pub(in crate::classify) const CONFLICT: &str = "\
     *serializationfailure; could not serialize; *restart transaction; *transactionretry; retry txn; \
     *writeconflict; write conflict; optimistic lock; *optimisticlock; *staleobject; *staledata; \
     row was updated or deleted by another transaction; object has been modified; version conflict; \
     *version_conflict; conditional request failed; *conditionalcheckfailed; *transactioncanceled; \
     transaction conflict; *transactionconflict; *concurrentmodification; *concurrencyexception; \
     edit conflict; too much contention; contention on; same idempotency key; idempotency key; \
     idempotency-key; conflicting*operation; operation*in progress; conflict with another; \
     conflicted with another; cannot lock ref; non-fast-forward; merge conflict; expected to affect 1 row; \
     stale*version; resourceversion; sha*does not match; current transaction is aborted; 40001; 40p01; \
     snapshot too old; record has changed since last read; terminated by other getupdates; ora-00060; \
     ora-08177; *40001; update conflict; updates were rejected; conflict with recovery; \
     read or write conflict; etag*match; precondition failed; please retry*transaction; \
     transaction can be retried; code = aborted; statuscode.aborted; 10 aborted; {concurrent,\
     simultaneous}~{update,modification,write,change,edit,transaction}; \
     {modified,changed,updated,edited,deleted}~by another; {modified,changed,updated,\
     edited}~{concurrently,since,in the meantime,meanwhile}; conflict {occurred,detected,while,during}; \
     exception: aborted; {record,row,document,entity} {was ,has been ,}{modified,changed}; \
     {write,update,edit,save,commit}~conflict; {branch,file,object,resource,item,page}~{was,has been,been} \
     {modified,changed}; concurrently {updated,modified,deleted,changed}; already has an active; while a run; \
     {run,job,build,execution,deployment}~{is active,is still active,still running}; {try,retry} the merge";

/// Rows that cannot be as the request has them: servers that did not foresee it send a 500.
pub(in crate::classify) const INTEGRITY: &str = "\
     duplicate key value; violates {unique,foreign key,not-null,check,exclusion} constraint; duplicate entry '; \
     {unique,foreign key,not null,check} constraint failed; e11000; key (*)=(*) already exists; \
     key (*)=(*) is not present; add or update a child row; delete or update a parent row; \
     unique constraint failed on the; foreign key constraint {failed,violated,fails}";

/// A connection has heartbeats too, and may be closed already: nobody lost a worker and no case was closed.
pub(in crate::classify) const CONNECTION_HEARTBEAT: &str = "\
     {amqp,connection,socket,websocket,broker,tcp}~{heartbeat,keepalive,keep-alive,ping}~{timeout,\
     timed out,missed,missing,lost,failed,expired}; amqp~heartbeat; *amqpheartbeat; ping timeout; \
     {no,missed} pong; heartbeats from {client,server,broker,peer}; \
     {connection,channel,socket,transport}~already~closed; {connection,channel,socket}~is closed";

/// The process that ran it is gone, or has lost its right to go on.
pub(in crate::classify) const WORKER_LOST: &str = "\
     *workerlost; keepererrorcode~session expired; worker exited prematurely; worker*died unexpectedly; *workercrashed; worker*crashed; \
     worker was lost; *oomkilled; oom killed; oom-killed; out-of-memory kill; killing*task*memory; \
     killing*worker*memory; killed*running low on memory; exited with signal 9; exited with signal; \
     signal 9 (sigkill); signal 15 (sigterm); signal: killed; signal sigkill; received sigterm; \
     sent sigkill; heartbeat timeout; missed heartbeat; missed*heartbeat; heartbeat*lost; lost heartbeat; \
     heartbeat*timed out; no heartbeat; *heartbeattimeout; lease*expired; lease*lost; lost the lease; \
     lost*lease; job stalled; stalled more than allowable; missing lock for job; *executorlost; \
     executor*lost; *killedworker; pod*evicted; was evicted; evicted|; preempted; spot interruption; \
     node*notready; container*killed; process*was killed; killed by*signal; terminated by signal; \
     error 137|; exit code 137; exit code: 137; exit status 137; code 137; \
     returned non-zero exit status 137; (exit 137); exit code 143; exit code: 143; zombie*job; *actordied; \
     actor died; actor*dead; worker*disappeared; worker*lost; process pool was terminated abruptly; \
     *brokenprocesspool; task*considered dead; detected as zombie; detected zombie; \
     node was low on resource; *nodedied; lambda*runtime exited; process exited before; \
     exited before completing; runtime exited; worker*terminated; killed worker; *sigkill; \
     heap out of memory; reached heap limit; *outofmemoryerror: java; oom killer; process was terminated; \
     out of memory: killed; *workerterminated; instance*terminated; worker*shutting down; \
     worker*stopped responding; worker*unresponsive; worker is gone; segmentation fault; sigsegv; \
     *workertimeout; worker timeout (pid; instance*interrupted; instance*reclaimed; instance*preempted; \
     spot itn; node shutdown; node was drained; allowed memory size; cannot allocate memory; core dumped; \
     worker*was killed; heartbeat*expired; could not renew lock; failed to renew lock; pod was deleted; \
     pod*was terminated; {worker,work-horse,workhorse,runner,executor,agent,node,child,subprocess,process,\
     container,pod,job,task,instance,kernel,machine,replica,consumer,engine}~{died,was lost,got lost,\
     is gone,disappeared,vanished,crashed,was killed,got killed,been killed,terminated unexpectedly,\
     terminated abruptly,exited unexpectedly,exited abnormally,stopped unexpectedly,died unexpectedly,\
     went away,went offline,lost communication,lost contact,stopped responding,was evicted,was preempted,\
     was reclaimed,was interrupted}; (signal {6,9,11,15}); signal {9,11}|; *abandonedjob; \
     {abandoned,orphaned} {job,task}; {job,task}~{abandoned,orphaned}; model~crashed; \
     prediction~interrupted; shutdown signal; without heartbeat; preempt; engine~dead; \
     lost {contact,communication}; heartbeat not received; {task,job} lost; {lease,claim,reservation,\
     visibility timeout,receipt handle,lock}~{expired,has been lost,was lost,lost}; *locklost; \
     no longer {the owner,own,hold,holding}; ownership~lost; {group,partition,partitions}~rebalanced; \
     partitions to another; *producerfenced; *fencedinstance; fenced off";

/// A conflict with something that stays: the same request meets it again.
pub(in crate::classify) const LASTING_CONFLICT: &str = "\
     already exists; already in use; already been taken; duplicate; different parameters; \
     different request; different payload; same idempotency key*different; \
     keys for idempotent requests can only be used; merge conflict; non-fast-forward; \
     updates were rejected; reuse*idempotency; idempotency*reuse; does not match; \
     terminated by other getupdates; not mergeable; sha wasn't supplied";
