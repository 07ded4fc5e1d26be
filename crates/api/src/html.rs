//! Pages of ours: no script runs in them, nothing is loaded, nobody frames them.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

/// What may happen with the forms of a page.
#[derive(Clone, Copy)]
pub(crate) enum Forms {
    /// There are none.
    None,
    /// They come back to us.
    ToUs,
}

/// The answer with a page; its one style is allowed by its digest.
pub(crate) fn answer(status: StatusCode, style: &str, forms: Forms, body: &str) -> HttpResponse {
    let digest = STANDARD.encode(Sha256::digest(style));
    let forms = match forms {
        Forms::None => "'none'",
        Forms::ToUs => "'self'",
    };
    let policy = format!(
        "default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; \
         form-action {forms}; frame-ancestors 'none'"
    );
    HttpResponse::build(status)
        .insert_header((CONTENT_SECURITY_POLICY, policy))
        .insert_header((CONTENT_TYPE, "text/html; charset=utf-8"))
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header(("Referrer-Policy", "same-origin"))
        .body(format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
             <link rel=\"icon\" href=\"data:,\"><title>ipwarden</title><style>{style}</style></head>\
             <body>{body}</body></html>\n"
        ))
}

/// Text that stays text in HTML.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_in_a_page_stays_text() {
        assert_eq!(escape("<script src=\"&\">"), "&lt;script src=&quot;&amp;&quot;&gt;");
    }
}
