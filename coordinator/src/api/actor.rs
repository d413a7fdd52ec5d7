//! Who says so.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use redrive_shared::error::{ErrorCode, Problem};
use redrive_shared::id::Name;
use redrive_shared::wire::ACTOR_HEADER;
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::{ObjectBuilder, Required, Type};

use super::Api;
use super::problem::ApiProblem;

/// The name in the header that says who changes something. Nobody checks that it is theirs: it is for the record.
pub(super) struct Actor(pub Option<Name>);

impl FromRequestParts<Api> for Actor {
    type Rejection = ApiProblem;

    async fn from_request_parts(parts: &mut Parts, _api: &Api) -> Result<Self, ApiProblem> {
        let Some(value) = parts.headers.get(ACTOR_HEADER) else { return Ok(Self(None)) };
        let refused = |why: String| {
            let detail = format!("the header `{ACTOR_HEADER}` {why}; send a name such as ada@laptop");
            ApiProblem::from(Problem::new(ErrorCode::InvalidValue, detail).at(ACTOR_HEADER))
        };
        let text = std::str::from_utf8(value.as_bytes()).map_err(|_| refused("is not UTF-8".to_owned()))?;
        Name::new(text).map(|name| Self(Some(name))).map_err(|error| refused(error.to_string()))
    }
}

impl IntoParams for Actor {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let text = ObjectBuilder::new().schema_type(Type::String).build();
        vec![
            ParameterBuilder::new()
                .name(ACTOR_HEADER)
                .parameter_in(ParameterIn::Header)
                .required(Required::False)
                .description(Some("Who changes it, for the record: a name such as ada@laptop"))
                .schema(Some(text))
                .build(),
        ]
    }
}
