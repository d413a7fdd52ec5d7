//! What models and those who serve them say: parameters, the length of the input, filters, unusable answers.

/// Limits of parameters and the shape of a request, whatever their words have in common with the limits of an input.
pub(in crate::classify) const PARAMETERS: &str = "\
     maximum allowed number of output tokens; max_tokens is too large; max_output_tokens is too large; \
     supports at most*completion tokens; max_completion_tokens*too large; call_id*string too long; \
     tool*string too long; name*string too long; tokens you requested exceed; message larger than max; maximum payload exceeded; \
     payload size exceeded; maximum of*{may,can} be {provided,sent,specified,used}; not enabled for models/; \
     too many redirects; exceeded*redirects; redirect loop; too many follow-up requests; \
     too many arguments; too many images; too many tools; too many parameters; {max_tokens,max tokens,\
     max_completion_tokens,max_output_tokens,maxoutputtokens}~{must be,should be,must not,cannot be,\
     less than or equal,too large,too high,value,out of range}; {max_tokens,max tokens,\
     max_completion_tokens,max_output_tokens}*{must be,should be}; invalid~{max_tokens,max tokens,\
     max_completion_tokens,max_output_tokens}; valid range of; malformed {input ,}request; extraneous key; \
     request is invalid:; invalid schema for; inequivalent arg; thinking~signature; signature~thinking; \
     thinking block; {update,upgrade} to the latest version; \
     {client,app,cli,extension,plugin,sdk}~version~{too old,outdated,not supported,no longer supported}; \
     {client,app,cli,extension,plugin,sdk} is {too old,outdated,out of date}";

/// A router that has nobody to send the request to names what was asked for.
pub(in crate::classify) const NOBODY_SERVES: &str = "\
     no endpoints found; no endpoints available; no allowed providers; no providers available";

/// More input than the model, or the server, takes.
pub(in crate::classify) const TOO_LONG: &str = "\
     context length; context window; context limit; context size; *context_length; maximum context; \
     max context; *contextwindow; prompt is too long; prompt too long; input is too long; input too long; \
     too many input tokens; input token count*exceeds; exceeds*maximum number of tokens; \
     exceed*max*tokens allowed; tokens*more than max tokens; exceeds the model's maximum; \
     exceed*maximum input; tokens exceed*limit; too large for model; messages is too long; \
     messages*too long; prompt*exceeds*maximum; exceeds the limit of*tokens; token limit exceeded; \
     exceeds*token limit; exceeded*token limit; exceeds*context; exceed*context; \
     longer than*maximum*token; maximum prompt length; prompt length*exceed; exceed*prompt length; \
     maximum*tokens*however; too many tokens: size limit; too many tokens in; size limit exceeded; \
     number of tokens*exceed; tokens in the prompt*exceed; request exceeds the maximum size; \
     request entity too large; payload too large; request too large; request_too_large; \
     input length*exceed; inputs' tokens*must be; inputs tokens*must; reduce the length of the messages; \
     reduce the length of; requested token count exceeds; range of input length should be; \
     sequence length is longer; input*tokens*max_new_tokens; exceed*n_ctx; *content': string too long; \
     'input': string too long; messages*string too long; conversation is too long; conversation too long; \
     tokens > *maximum; content length exceeds; max_prompt_tokens; max tokens limit*input; \
     larger than the*context; must have less than*tokens; fewer than*tokens; body too large; \
     message too long; exceeds the available context; text is too long; document is too long; \
     exceeds*maximum request size; tokens*greater than the max; {prompt,input,inputs,message,messages,\
     conversation,request,document,text}~{token,tokens,length}*{exceed,too large,too long,greater than,\
     larger than,longer than,more than,over the,above the,limit of}; {exceed,exceeds,exceeded,over,\
     above}~{maximum,max,model,allowed,supported,available}~{context,prompt,input token,input length}; \
     {input,prompt} tokens exceeded; too many {input,prompt,total} tokens; \
     {prompt,input,request}~{too many tokens,too large for}; too many tokens: total; token count~exceed; \
     {input,prompt}~characters~exceed; max input~exceed";

/// A filter said no.
pub(in crate::classify) const FILTERED: &str = "\
     content filter; content_filter; *contentfilter; content management policy; content policy; \
     content_policy; *contentpolicy; content moderation; content exists risk; content safety; \
     safety system; safety filter; safety setting; safety reasons; safety check; blocked by safety; \
     due to safety; blocked*safety; usage policy; usage policies; usage guidelines; violat*policy; \
     violat*policies; violat*guidelines; responsible ai; responsible_ai; *responsibleai; \
     *prohibited_content; prohibited content; sensitive content; sensitive words; inappropriate content; \
     flagged; moderation; guardrail*intervened; blocked by*guardrail; guardrail; blocked by content; \
     output blocked; unsafe content; may contain unsafe; unsafe or sensitive; sensitive information; \
     finish_reason*safety; response was blocked; prompt was blocked; *blockedprompt; blocked*recitation; \
     recitation; reciting; finish_reason is 3; finish_reason is 4; reproduc*copyright; harmful content; \
     *stopcandidate; *datainspection; inspection failed; not allowed by our safety; blockreason; \
     block_reason; csam; jailbreak; disallowed content; nsfw; explicit content; policy violation; \
     content violation; unsafe prompt; unsafe request; protected material; filtered due to; {unsafe,\
     inappropriate,sensitive,harmful,prohibited,disallowed,offensive,violent,sexual,explicit,adult,\
     hateful,objectionable}~{content,prompt,image,words,material,language,topic}; *new_sensitive; \
     {input,output,text,image}~sensitive; {blocked,rejected,filtered,flagged}~{moderation,safety,content,\
     safeguard}";

/// The answer cannot be used.
pub(in crate::classify) const BAD_OUTPUT: &str = "\
     could not parse llm output; parsing llm output; parse llm output; *outputparser; \
     invalid or incomplete llm output; failed to parse*response from*model; malformed_function_call; \
     *malformed function call; *malformed_tool; invalid json*argument; invalid*tool call argument; \
     tool call*invalid json; tool*arguments*not valid json; arguments*invalid json; failed to parse tool; \
     failed to parse*arguments; invalid tool call; invalid function call; failed to call a function; \
     failed to generate json; failed to validate json; failed*generate*valid json; \
     invalid function arguments; invalid arguments*json; unparsable; unterminated string; \
     not valid json*model; *lengthfinishreason; length limit was reached; output validation; \
     result validation; unexpected model behavior; *unexpectedmodelbehavior; model produced invalid; \
     model did not return; model returned*empty; empty response from*model; returned an empty response; \
     empty response; no object generated; *noobjectgenerated; response did not match schema; \
     did not match*schema; *typevalidationerror; type validation failed; missing 'action; \
     both perform action and give; could not parse response content; model output*must contain; \
     model output error; *jsonparseerror; *ai_jsonparse; could not parse*json; failed to parse*json; \
     error parsing*json; invalid json output; invalid json response; invalid json; \
     hit the output token limit; output token maximum; output token limit; maximum output tokens; \
     max_tokens*reached; finish_reason*length; finish reason*length; finish_reason 'length'; \
     response was truncated; output was truncated; truncated*max_tokens; finished with reason*max_tokens; \
     *unexpected_tool_call; tool call*was not in; attempted to call tool*not in request; \
     unknown tool*model; tried to call*tool*not; no tool call found in*response; \
     expecting property name enclosed; unexpected non-whitespace character after json; \
     unexpected end of json input; expected*json*got; invalid response structure; parser*failed*output; \
     outputs*no generations; no generations; no tool calls found; unavailable tool; *nosuchtool; \
     is not a valid tool; not a valid tool name; didn't return a message; choices=[]; \
     stop reason*max_tokens; contained no tokens; contained no content; no content in*response; \
     returned no content; no choices; empty completion; malformed response; failed to parse*output; \
     cannot parse*output; could not parse*output; invalid response format; invalid tool arguments; \
     malformed~{tool call,tool use,tool_use,function call,tool argument}; {could not,cannot,can't,\
     couldn't,failed to,unable to,error}~{parse,parsing,deserialize,interpret,extract}~{output,completion,\
     generation,answer,llm,lm response,model,tool call,tool arguments,function call,structured,assistant}; \
     {model,llm,assistant}~{returned,produced,generated,gave} {an ,a ,}{invalid,malformed,empty,\
     incomplete,unparseable,truncated}; *invalidresponsedata; *invalidtoolinput; invalid tool input; \
     invalid input for tool; *adapterparse; output~{not valid,invalid,not parseable}~json; \
     no {tool,function} call~{found,made,returned}; empty~{response,reply,answer,completion,candidate}; \
     {response,answer,completion,candidate,parts,choices} {is,was,are,were} empty; \
     {returned,received,got,produced} {an ,}empty; returned nothing; truncated~token limit; {tool call,tool use,function call,tool arguments,completion,\
     model output,model response,llm output}~{not be parsed,not be decoded,unparsable,unparseable,\
     is invalid,is malformed,was invalid,was malformed}; finish reason: 9|";

/// A model that is not there, not served, or not for this caller.
pub(in crate::classify) const NO_SUCH_MODEL: &str = "\
     model*does not exist; model*not found; model*not exist; model*is not supported; model*not supported; \
     model*not available; model*isn't available; model*decommissioned; model*deprecated; \
     model*has been retired; model*retired; model*end of life; model*end of its life; no such model; \
     unknown model; invalid model; model identifier is invalid; model id*invalid; unsupported model; \
     model*no longer; model*has been shut down; model*removed; model*access*denied; model*unrecognized; \
     not find model; models/* is not found; publisher model; deployment*does not exist; \
     deployment*not found; *deploymentnotfound; *modelnotfound; no available channel; \
     no provider*available; not deployed; model is not loaded; try pulling it; pull model; \
     model*not been deployed; on-demand throughput isn't supported; no healthy deployments for; \
     llm provider not provided; not a valid model; is not a chat model; model*not allowed; \
     model*not accessible; model: claude; model: gpt; engine*not found; model_not_found; \
     model is not available; endpoint*not running; endpoint*is paused; endpoint*is stopped; \
     non-serverless; end of its life; as legacy; model*discontinued; model*sunset; model*is disabled; \
     model*not enabled; unrecognized model; {could not,cannot,can't,couldn't,unable to,failed to}~{find,\
     resolve,locate}*{model,deployment,engine}; no {model,models}~loaded; {unknown,no,\
     unsupported} {provider,channel,account,accounts,backend}~model; no {deployment,deployments,endpoint,\
     endpoints,model,models,channel}~available; not found the model; {model,models}~{not loaded,\
     not installed,not downloaded,not ready for serving}; not supported by any provider";

/// An answer that hit its own limit.
pub(in crate::classify) const OUT_OF_TOKENS: &str = "\
     length limit was reached; max_tokens; output token limit; *lengthfinishreason";

/// What a 404 has to speak of to be about a model and not about a path.
pub(in crate::classify) const MODEL: &str = "\
     model; deployment; engine";

/// How a model says no, in the first words of an answer.
pub(in crate::classify) const REFUSING: &str = "\
     i can't assist; i cannot assist; i can't help with; i cannot help with; i'm unable to; \
     i am unable to; i'm not able to; i won't; i can't provide; i cannot provide; i can't comply; \
     i cannot comply; i'm sorry, but i can; i'm sorry, i can; sorry, but i can; i must decline; \
     i can't create; i cannot create; i can't fulfill; i cannot fulfill; i can't continue; model refused; \
     declined to answer; declined to respond; *refusal";
