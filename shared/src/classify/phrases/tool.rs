//! What tools report, and what is wrong with a request where no status tells.

/// A tool's report that it ran and failed.
pub(in crate::classify) const REPORTED: &str = "\
     error executing tool; tool execution*failed; tool execution error; tool*execution failed; \
     error calling tool; tool call failed; tool*failed with; failed to execute tool; error running tool; \
     *toolexception; *toolerror; error in tool; *toolinvocation; tool*raised; mcp error -32603; \
     mcp server*error; tool '*' failed; tool returned an error; tool*returned*error; error invoking tool; \
     error while executing tool; tool use error; tool_use_error; plugin*failed; incorrect password error; \
     password*pdf; pdf*password; pdf*encrypted; encrypted*pdf; pdf*decrypt; need to be decrypted; \
     file has not been decrypted; *pdfread; *pdfium; *pdferror; *pdfsyntax; *pdfparse; invalid pdf; \
     pdf*corrupt; corrupt*pdf; pdf*damaged; damaged*pdf; pdf header; eof marker not found; \
     no /root object; pdf structure; pdf processing; pdf conversion; convert*pdf; pdf page; pdf*invalid; \
     *tesseract; ocr failed; trailer*pdf; startxref; xref table; *poppler; pdftotext; page count; unrelated histories";

/// A client that waited for a tool's server and got nothing: nobody knows whether the tool ran. Before what tools report, in
/// whose words it is wrapped.
pub(in crate::classify) const GAVE_UP_WAITING: &str = "\
     mcp error*{timed out,timeout}; mcperror*{timed out,timeout}; mcp {request,call,connection,server}~{timed out,\
     timeout,did not respond,exceeded ~ ms}; -32001~{timed out,timeout}";

/// How commands, browsers and files fail.
pub(in crate::classify) const FAILED: &str = "\
     error response from daemon; oci runtime create failed; executable file not found; \
     error executing command; command failed with exit; command failed; command exited with; \
     exited with code; did not complete successfully; exit status 1; non-zero exit; browser*closed; target*closed; page crashed; \
     *playwright; *selenium; selector*not found; *nosuchelement; execution context was destroyed; \
     net::err_; no such file or directory; *enoent; *filenotfound; *isadirectory; is a directory; \
     not a git repository; *modulenotfounderror; no module named; command not found; \
     cannot identify image file; *zerodivision; no space left on device; string to replace not found; \
     old_string; invalid literal for int; stale element; click intercepted; strict mode violation; \
     not interactable; browser~{crashed,disconnected}; eisdir|; enotdir|; enospc|; eexist|; enotempty|; \
     edquot|";

/// A tool's failure that passes by itself; the rest of them repeats with the same input.
pub(in crate::classify) const PASSING_TOOL_ERROR: &str = "\
     try again; temporar; timed out; timeout; unavailable; browser*closed; target*closed; page crashed; \
     connection; network; busy; execution context was destroyed; internal error; -32603; crashed; econn; \
     overloaded; 500|; 502|; 503|; rate limit; intercept; not clickable; not interactable; stale element; \
     detached; not attached";

/// A request that has to change.
pub(in crate::classify) const BAD_REQUEST: &str = "\
     invalid request; invalid_request; bad request; *badrequest; *invalidrequest; *validationexception; \
     validation error; *validationerror; validation failed; is required; required field; missing required; \
     must be one of; not of type; must be a; must be of type; unsupported parameter; unknown parameter; \
     unrecognized request argument; invalid value; invalid type; invalid parameter; \
     unexpected keyword argument; unprocessable; *unprocessableentity; does not exist; syntax error; \
     *syntaxerror; *undefinedcolumn; *undefinedtable; no such column; no such table; unknown column; \
     violates*constraint; constraint failed; duplicate entry; duplicate key; *integrityerror; \
     *programmingerror; data too long; invalid input syntax; invalid argument; *invalidargument; \
     malformed; not found; *notfound; method not allowed; unsupported; not supported; wrongtype; \
     schema*invalid; invalid schema; mcp error -32602; mcp error -32601; invalid params; method not found; \
     operation not permitted; too short; too small; too many values; exceeds the maximum; invalid; \
     cannot be empty; must not be empty; non-empty; unknown field; unexpected field; \
     additional properties; out of supported range; type mismatch; not a valid; unrecognized; \
     extra inputs are not permitted; did you mean; cannot {query field,be null,be blank,be disabled,\
     be negative,specify both}; no matching; could not find a version; unimplemented; is out of range; \
     value out of range; out of range {for,value}; unknown command; crossslot; noscript|; execabort; \
     curl: (3); curl error 3|; constraint*violated; incorrect param; param incorrect; is mandatory; \
     should be one of; {could not,couldn't,unable to,cannot} find; not implemented; constraint violation; \
     must {have,contain,match,not be,alternate,be between}; should match; \
     cannot unmarshal; {image,file,attachment}~{exceeds,too large,larger than}; \
     no such {field,option,property}; unexpected {key,property,parameter}; unknown {query,option,property}";
