//! What callers send: bodies and query strings, read strictly, every complaint with its field.

use std::collections::BTreeMap;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::str::FromStr;
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::{FromRequest, HttpRequest, web};
use chrono::{DateTime, Datelike as _, Utc};
use futures_util::{Stream, StreamExt as _};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::ApiError;
use crate::paging::{Page, Seal, not_ours, not_yet};

/// No body here needs more, in bytes: many blocks with long reasons.
const LARGEST_BODY: usize = 256 << 10;
/// No body here takes longer.
const BODY_LIMIT: Duration = Duration::from_secs(5);
/// Rows of a page, unless asked for otherwise.
const PAGE: i64 = 50;
const LARGEST_PAGE: i64 = 1_000;

/// A JSON body. Unknown and repeated fields are errors of the type it is read into.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned + 'static> FromRequest for Body<T> {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Body<T>, ApiError>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (sent, payload) = (kind(request), payload.take());
        Box::pin(async move {
            match sent {
                Kind::Json => parse(&read(payload, LARGEST_BODY).await?).map(Body),
                Kind::Form | Kind::Other => Err(ApiError::NotJson),
            }
        })
    }
}

/// What a body says that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `application/json`
    Json,
    /// `application/x-www-form-urlencoded`
    Form,
    /// Anything else, or nothing.
    Other,
}

pub(crate) fn kind(request: &HttpRequest) -> Kind {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
    match essence.to_ascii_lowercase().as_str() {
        "application/json" => Kind::Json,
        "application/x-www-form-urlencoded" => Kind::Form,
        _ => Kind::Other,
    }
}

/// Reads a body of at most `largest` bytes.
pub(crate) async fn read(
    mut payload: impl Stream<Item = Result<web::Bytes, PayloadError>> + Unpin,
    largest: usize,
) -> Result<web::BytesMut, ApiError> {
    let mut body = web::BytesMut::new();
    // In all, however steadily it drips.
    let deadline = tokio::time::sleep(BODY_LIMIT);
    tokio::pin!(deadline);
    while let Some(chunk) = tokio::select! {
        chunk = payload.next() => chunk,
        () = &mut deadline => return Err(ApiError::TooSlow { limit: BODY_LIMIT }),
    } {
        let chunk = chunk.map_err(|error| malformed("body", error))?;
        if body.len() + chunk.len() > largest {
            return Err(ApiError::TooLarge { limit: largest });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    // serde would take an array for an object whose fields come in order.
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(malformed("body", "an object is wanted, not an array"));
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        // `?` is where the text ended before a field was named.
        let is_named = path != "." && path != "?";
        let field = if is_named { path } else { named_field(error.inner()) };
        malformed(&field, error.into_inner())
    })?;
    json.end().map_err(|error| malformed("body", error))?;
    Ok(read)
}

/// serde names unknown, missing and repeated fields in its message only.
fn named_field(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let named = message.contains("field `").then(|| message.split('`').nth(1)).flatten();
    named.unwrap_or("body").to_owned()
}

fn malformed(field: &str, error: impl std::fmt::Display) -> ApiError {
    ApiError::Malformed { field: field.to_owned(), detail: error.to_string() }
}

/// A JSON object among others. serde would take an array for an object whose fields come in order.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object<T>, D::Error> {
        struct OnlyMaps<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for OnlyMaps<T> {
            type Value = T;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_map(OnlyMaps(PhantomData)).map(Object)
    }
}

/// The parameters of a query string. Those that nobody asked for are refused by [`Query::done`].
pub(crate) struct Query {
    left: BTreeMap<String, String>,
    seal: Option<Seal>,
}

impl Query {
    pub(crate) fn of(request: &HttpRequest) -> Result<Query, ApiError> {
        let pairs: Vec<(String, String)> = web::Query::from_query(request.query_string())
            .map(web::Query::into_inner)
            .map_err(|error| ApiError::Malformed {
                field: "query".to_owned(),
                detail: error.to_string(),
            })?;
        let mut left = BTreeMap::new();
        for (name, value) in pairs {
            if left.insert(name.clone(), value).is_some() {
                let detail = format!("`{name}` stands in the query twice");
                return Err(ApiError::Malformed { field: name, detail });
            }
        }
        let seal = Seal::of(request, &left);
        Ok(Query { left, seal })
    }

    /// The value of a parameter, if it is there.
    pub(crate) fn take<T>(&mut self, name: &'static str) -> Result<Option<T>, ApiError>
    where
        T: FromStr,
        T::Err: std::fmt::Display,
    {
        let Some(text) = self.left.remove(name) else { return Ok(None) };
        match text.parse() {
            Ok(value) => Ok(Some(value)),
            Err(error) => Err(ApiError::Invalid { field: name, detail: error.to_string() }),
        }
    }

    /// A time of RFC 3339.
    pub(crate) fn time(&mut self, name: &'static str) -> Result<Option<DateTime<Utc>>, ApiError> {
        let Some(text) = self.left.remove(name) else { return Ok(None) };
        // A `+` in a query is a blank by the rules of forms; people forget to escape it.
        match DateTime::parse_from_rfc3339(&text.replace(' ', "+")) {
            Ok(time) if is_in_reach(&time.to_utc()) => Ok(Some(time.to_utc())),
            _ => Err(ApiError::Invalid {
                field: name,
                detail: format!("`{text}` is no time of RFC 3339, such as 2026-01-31T12:00:00Z"),
            }),
        }
    }

    /// How many rows a page shall have.
    pub(crate) fn limit(&mut self) -> Result<i64, ApiError> {
        match self.take("limit")?.unwrap_or(PAGE) {
            limit @ 1..=LARGEST_PAGE => Ok(limit),
            other => Err(ApiError::Invalid {
                field: "limit",
                detail: format!("{other} is not between 1 and {LARGEST_PAGE}"),
            }),
        }
    }

    /// Which page shall be shown; the last thing that a listing takes.
    pub(crate) fn page<const N: usize>(mut self) -> Result<Page<N>, ApiError> {
        let limit = self.limit()?;
        let seal = self.seal.take();
        let after = match self.left.remove("cursor") {
            None => None,
            Some(_) if seal.is_none() => return Err(not_yet()),
            Some(text) => {
                let position = seal.as_ref().and_then(|seal| seal.open(&text));
                Some(position.ok_or_else(not_ours)?)
            }
        };
        self.done()?;
        Ok(Page::new(after, limit, seal))
    }

    /// Where a stream shall go on: what it said last stands in `cursor`, or in what a browser sends when
    /// it comes back.
    pub(crate) fn resume<const N: usize>(
        mut self,
        request: &HttpRequest,
    ) -> Result<(Option<[i64; N]>, Seal), ApiError> {
        let seal = self.seal.take().ok_or_else(not_yet)?;
        let asked = self.left.remove("cursor");
        let after = match (request.headers().get("last-event-id"), asked) {
            (Some(id), _) => {
                let position = id.to_str().ok().and_then(|text| seal.open(text));
                let detail = "this is no `id` of an event of this stream".to_owned();
                let field = "Last-Event-ID";
                Some(position.ok_or(ApiError::Invalid { field, detail })?)
            }
            (None, Some(text)) => Some(seal.open(&text).ok_or_else(not_ours)?),
            (None, None) => None,
        };
        self.done()?;
        Ok((after, seal))
    }

    /// Refuses what is left.
    pub(crate) fn done(self) -> Result<(), ApiError> {
        match self.left.into_keys().next() {
            None => Ok(()),
            Some(name) => {
                let detail = format!("this route knows no parameter `{name}`");
                Err(ApiError::Malformed { field: name, detail })
            }
        }
    }
}

/// Whether every store can hold a time: PostgreSQL begins in 4713 BC, RFC 3339 ends in 9999.
pub(crate) fn is_in_reach(time: &DateTime<Utc>) -> bool {
    (1..=9999).contains(&time.year())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sent {
        #[expect(dead_code, reason = "only read into")]
        target: String,
        #[serde(default)]
        #[expect(dead_code, reason = "only read into")]
        force: bool,
    }

    #[test]
    fn every_complaint_about_a_body_names_a_field() {
        let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
        for (body, named) in [
            ("", "body"),
            ("{}", "target"),
            ("[]", "body"),
            (r#" ["192.0.2.1"]"#, "body"),
            ("null", "body"),
            ("1e400", "body"),
            (r#"{"target":"a""#, "body"),
            (deep.as_str(), "body"),
            (r#"{"target":5}"#, "target"),
            (r#"{"target":"a","force":"yes"}"#, "force"),
            (r#"{"target":"a","target":"b"}"#, "target"),
            (r#"{"target":"a","extra":1}"#, "extra"),
            ("\u{feff}{}", "body"),
            (r#"{"target":NaN}"#, "target"),
            (r#"{"target":"\ud800"}"#, "target"),
            (r#"{"target":"a"} x"#, "body"),
        ] {
            match parse::<Sent>(body.as_bytes()) {
                Err(ApiError::Malformed { field, .. }) => assert_eq!(field, named, "{body}"),
                other => panic!("{body}: {other:?}"),
            }
        }
    }
}
