//! Downloads, bounded in bytes and time.
//!
//! Certificates are verified against those that the system trusts (or `SSL_CERT_FILE`); a redirect may
//! lead from http to https and never back. `HTTPS_PROXY` and its like are honoured.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use indicatif::ProgressBar;
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};

use crate::failure::Failure;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// A server that sends nothing for so long is given up.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);
const REDIRECTS: usize = 5;

/// Whether a source is to be downloaded.
pub(crate) fn is_url(source: &str) -> bool {
    let starts = |scheme: &str| {
        source.get(..scheme.len()).is_some_and(|head| head.eq_ignore_ascii_case(scheme))
    };
    starts("http://") || starts("https://")
}

/// Writes what stands at `url` into `sink`, at most `most` bytes, and shows how far it is.
pub(crate) async fn download(
    url: &str,
    most: u64,
    sink: &mut impl Write,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    let parsed =
        Url::parse(url).map_err(|error| Failure::Usage(format!("{}: {error}", public(url))))?;
    let name = public(url);
    let cannot = |why: &dyn std::fmt::Display| {
        Failure::other(format!(
            "cannot download {name}: {why}; nothing was changed, try again, or give a file instead"
        ))
    };
    let failed = |error: reqwest::Error| cannot(&chain(&error.without_url()));
    let client = client(parsed.scheme() == "https").map_err(|error| cannot(&error))?;
    let mut response = client.get(parsed).send().await.map_err(failed)?;
    let status = response.status();
    if !status.is_success() {
        return Err(cannot(&format!("the server answers {status}")));
    }
    let too_long = || cannot(&format!("it is longer than {} MiB", most >> 20));
    if response.content_length().is_some_and(|length| length > most) {
        return Err(too_long());
    }
    if let Some(length) = response.content_length() {
        bar.set_length(length);
    }
    let mut read = 0;
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        read += chunk.len() as u64;
        if read > most {
            return Err(too_long());
        }
        sink.write_all(&chunk)?;
        bar.set_position(read);
    }
    Ok(())
}

/// A URL as it may be shown and kept: without a password and without a query, which may hold a key.
pub(crate) fn public(url: &str) -> String {
    match Url::parse(url) {
        Ok(mut url) => {
            url.set_query(None);
            url.set_fragment(None);
            // A URL of http has both.
            let _ = url.set_username("");
            let _ = url.set_password(None);
            url.to_string()
        }
        Err(_) => "the URL".to_owned(),
    }
}

fn client(is_https: bool) -> anyhow::Result<Client> {
    let redirects = Policy::custom(move |attempt| {
        if attempt.previous().len() > REDIRECTS {
            return attempt.error("it redirects too often");
        }
        let was_https = attempt.previous().iter().any(|url| url.scheme() == "https");
        match was_https && attempt.url().scheme() != "https" {
            true => attempt.error("it redirects from https to http"),
            false => attempt.follow(),
        }
    });
    let roots = rustls_native_certs::load_native_certs();
    let mut trusted = RootCertStore::empty();
    let (any, _) = trusted.add_parsable_certificates(roots.certs);
    if any == 0 && is_https {
        anyhow::bail!(
            "this system has no trusted certificates; install ca-certificates, or name a file in \
             SSL_CERT_FILE"
        );
    }
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(trusted)
        .with_no_client_auth();
    Ok(Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(concat!("ipctl/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_LIMIT)
        .read_timeout(SILENCE_LIMIT)
        .redirect(redirects)
        .build()?)
}

/// The library keeps what exactly went wrong in the causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_web_addresses_are_downloaded_and_their_secrets_are_not_shown() {
        for (source, expected) in [
            ("https://example.com/list", true),
            ("HTTP://example.com", true),
            ("ftp://example.com", false),
            ("http.txt", false),
            ("ü", false),
        ] {
            assert_eq!(is_url(source), expected, "{source}");
        }
        let shown = public("https://me:sesame@example.com/a?licence_key=geheim#x");
        assert_eq!(shown, "https://example.com/a");
    }
}
