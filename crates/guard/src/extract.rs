//! What a handler can ask the guard: who the client is, and what was decided about it.

use std::future::{Ready, ready};
use std::ops::Deref;
use std::rc::Rc;

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::{FromRequest, HttpMessage as _, HttpRequest, ResponseError};
use ipwarden_engine::client_ip;
use ipwarden_engine::guard::Admission;

/// The client of this request, as an argument of a handler.
#[derive(Clone, Copy, Debug)]
pub struct ClientIp(pub client_ip::ClientIp);

/// What the guard decided about this request, as an argument of a handler.
#[derive(Clone, Debug)]
pub struct Admitted(pub Rc<Admission>);

/// What the guard decided about a request; `None` where none is wrapped around its application.
pub fn admission(request: &HttpRequest) -> Option<Rc<Admission>> {
    request.extensions().get::<Rc<Admission>>().cloned()
}

/// The handler asks the guard, but nothing here is wrapped in it.
#[derive(Clone, Copy, Debug)]
pub struct NotGuarded;

impl FromRequest for Admitted {
    type Error = NotGuarded;
    type Future = Ready<Result<Admitted, NotGuarded>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(admission(request).map(Admitted).ok_or(NotGuarded))
    }
}

impl FromRequest for ClientIp {
    type Error = NotGuarded;
    type Future = Ready<Result<ClientIp, NotGuarded>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(admission(request).map(|own| ClientIp(own.client)).ok_or(NotGuarded))
    }
}

impl Deref for ClientIp {
    type Target = client_ip::ClientIp;

    fn deref(&self) -> &client_ip::ClientIp {
        &self.0
    }
}

impl Deref for Admitted {
    type Target = Admission;

    fn deref(&self) -> &Admission {
        &self.0
    }
}

impl std::fmt::Display for NotGuarded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("this application is not wrapped in the ipwarden guard")
    }
}

impl std::error::Error for NotGuarded {}

impl ResponseError for NotGuarded {
    fn status_code(&self) -> StatusCode {
        StatusCode::INTERNAL_SERVER_ERROR
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::{TestRequest, call_and_read_body, call_service, init_service};
    use actix_web::{App, web};

    use super::ClientIp;

    #[actix_web::test]
    async fn an_application_that_is_not_wrapped_is_told_so() {
        let route = web::get().to(|client: ClientIp| async move { client.ip.to_string() });
        let app = init_service(App::new().route("/", route)).await;
        let request = || TestRequest::get().to_request();
        assert_eq!(call_service(&app, request()).await.status(), 500);
        let body = call_and_read_body(&app, request()).await;
        assert!(body.windows(11).any(|words| words == b"not wrapped"), "{body:?}");
    }
}
