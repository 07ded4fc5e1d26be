//! A client of the gate over gRPC, as Envoy is one.
#![expect(clippy::unwrap_used, reason = "only tests come here")]

use std::collections::BTreeMap;

use envoy_types::ext_authz::v3::pb::{
    CheckRequest, CheckResponse, HeaderValue, HeaderValueOption, HttpResponse,
};
use envoy_types::pb::envoy::config::core::v3::{
    Address, HeaderMap, SocketAddress, address::Address as Kind,
};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request};
use envoy_types::pb::envoy::service::auth::v3::{
    AttributeContext, authorization_client::AuthorizationClient,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::common::{Launch, Replica};

/// What an answer says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) code: Code,
    pub(crate) status: u32,
    pub(crate) body: String,
    pub(crate) to_client: BTreeMap<String, String>,
    pub(crate) to_backend: BTreeMap<String, String>,
    pub(crate) removed: Vec<String>,
}

/// A connection.
#[derive(Clone)]
pub(crate) struct Envoy(AuthorizationClient<Channel>);

pub(crate) fn on_grpc(launch: Launch) -> Launch {
    launch.with("IPWARDEN_GATE__GRPC_BIND", "127.0.0.1:0")
}

/// What Envoy sends of a request if it is told to send the lines as they came.
pub(crate) fn about(method: &str, path: &str, lines: &[(&str, &[u8])]) -> HttpRequest {
    let line = |(key, value): &(&str, &[u8])| HeaderValue {
        key: (*key).to_owned(),
        raw_value: value.to_vec(),
        ..HeaderValue::default()
    };
    let header_map = Some(HeaderMap { headers: lines.iter().map(line).collect() });
    let (method, path) = (method.to_owned(), path.to_owned());
    HttpRequest { method, path, header_map, ..HttpRequest::default() }
}

/// The same if it is not told so.
pub(crate) fn joined(method: &str, path: &str, headers: &[(&str, &str)]) -> HttpRequest {
    let own = |text: &str| text.to_owned();
    let headers = headers.iter().map(|(name, value)| (own(name), own(value))).collect();
    HttpRequest { method: own(method), path: own(path), headers, ..HttpRequest::default() }
}

pub(crate) fn question(http: Option<HttpRequest>, source: Option<&str>) -> CheckRequest {
    let socket = |address: &str| SocketAddress { address: address.to_owned(), ..<_>::default() };
    let address = source.map(|it| Address { address: Some(Kind::SocketAddress(socket(it))) });
    CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(Peer { address, ..Peer::default() }),
            request: Some(Request { http, ..Request::default() }),
            ..AttributeContext::default()
        }),
    }
}

impl Envoy {
    pub(crate) async fn of(replica: &Replica) -> Envoy {
        Envoy(AuthorizationClient::connect(replica.announced("grpc")).await.unwrap())
    }

    pub(crate) async fn asks(&self, question: CheckRequest) -> Result<Told, Status> {
        self.0.clone().check(question).await.map(|answer| Told::of(answer.into_inner()))
    }

    pub(crate) async fn about(&self, request: HttpRequest) -> Told {
        self.asks(question(Some(request), Some("198.51.100.1"))).await.unwrap()
    }

    pub(crate) async fn get(&self, client: &str, path: &str) -> Told {
        self.about(about("GET", path, &[("x-forwarded-for", client.as_bytes())])).await
    }
}

impl Told {
    fn of(answer: CheckResponse) -> Told {
        let code = Code::from(answer.status.unwrap().code);
        let fields = |fields: Vec<HeaderValueOption>| -> BTreeMap<_, _> {
            let field = |field: HeaderValueOption| field.header.map(|it| (it.key, it.value));
            fields.into_iter().filter_map(field).collect()
        };
        let mut told = Told {
            code,
            status: 200,
            body: String::new(),
            to_client: BTreeMap::new(),
            to_backend: BTreeMap::new(),
            removed: Vec::new(),
        };
        match answer.http_response.unwrap() {
            HttpResponse::OkResponse(ok) => {
                told.to_backend = fields(ok.headers);
                told.to_client = fields(ok.response_headers_to_add);
                told.removed = ok.headers_to_remove;
            }
            HttpResponse::DeniedResponse(denied) => {
                told.status = denied.status.unwrap().code.try_into().unwrap();
                told.body = denied.body;
                told.to_client = fields(denied.headers);
            }
            HttpResponse::ErrorResponse(error) => panic!("an error lets pass: {error:?}"),
        }
        assert_eq!(code == Code::Ok, told.status == 200);
        told
    }

    pub(crate) fn field(&self, name: &str) -> &str {
        self.to_client.get(name).map_or("", String::as_str)
    }

    pub(crate) fn left(&self) -> Option<u32> {
        let (_, rest) = self.field("ratelimit").split_once(";r=")?;
        rest.split(';').next()?.parse().ok()
    }
}
