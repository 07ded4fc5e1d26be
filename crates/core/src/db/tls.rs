//! `sslmode` and `sslrootcert` with the meaning that libpq gives them.
//!
//! tokio-postgres knows three modes only, and rustls always verifies; so both keys are taken out of
//! the URL here and turned into a verifier.
//!
//! | sslmode | encrypted | certificate |
//! |---|---|---|
//! | `disable` | no | |
//! | `prefer` (default), `allow` | if the server can | any |
//! | `require` | yes | any; verified as `verify-ca` when `sslrootcert` is given |
//! | `verify-ca` | yes | signed by `sslrootcert`, or by one of the system's |
//! | `verify-full` | yes | the same, and for this host |

use std::error::Error as _;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::DbError;

/// Where to connect and how to be sure of it.
pub(super) struct Target {
    pub(super) config: tokio_postgres::Config,
    pub(super) tls: MakeRustlsConnect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verify {
    Nothing,
    Chain,
    ChainAndHost,
}

impl Target {
    pub(super) fn parse(url: &str) -> Result<Target, DbError> {
        let Described { config, verify, root } = Described::read(url).map_err(DbError::Url)?;
        Ok(Target { config, tls: MakeRustlsConnect::new(client_config(verify, root.as_deref())?) })
    }
}

/// Says what is wrong with the URL of a PostgreSQL, without a look at any file that it names.
///
/// # Errors
/// What is wrong, and what would be right; never with the password.
pub(crate) fn check_url(url: &str) -> Result<(), String> {
    Described::read(url).map(drop)
}

/// What a URL says.
struct Described {
    config: tokio_postgres::Config,
    verify: Verify,
    root: Option<String>,
}

impl Described {
    fn read(url: &str) -> Result<Described, String> {
        let (url, mode, root) = split(url);
        let mut config: tokio_postgres::Config =
            url.parse().map_err(|error: tokio_postgres::Error| why(&error))?;
        if config.get_hosts().is_empty() {
            return Err("names no server: write `postgres://user@host/database`".to_owned());
        }
        let (ssl, verify) = match (mode.as_deref().unwrap_or("prefer"), &root) {
            ("disable", _) => (SslMode::Disable, Verify::Nothing),
            ("allow" | "prefer", _) => (SslMode::Prefer, Verify::Nothing),
            ("require", None) => (SslMode::Require, Verify::Nothing),
            ("require" | "verify-ca", _) => (SslMode::Require, Verify::Chain),
            ("verify-full", _) => (SslMode::Require, Verify::ChainAndHost),
            (other, _) => {
                return Err(format!(
                    "sslmode {other} is unknown: use disable, prefer, require, verify-ca or verify-full"
                ));
            }
        };
        config.ssl_mode(ssl);
        Ok(Described { config, verify, root })
    }
}

/// The library keeps what exactly is wrong in the cause.
fn why(error: &tokio_postgres::Error) -> String {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}: write `postgres://user@host:5432/database`")
}

/// Takes `sslmode` and `sslrootcert` out of a URL's query.
fn split(url: &str) -> (String, Option<String>, Option<String>) {
    let Some((base, query)) = url.split_once('?') else {
        return (url.to_owned(), None, None);
    };
    let (mut mode, mut root, mut rest) = (None, None, Vec::new());
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some(("sslmode", value)) => mode = Some(value.to_owned()),
            Some(("sslrootcert", value)) => root = Some(value.replace("%2F", "/")),
            _ => rest.push(pair),
        }
    }
    let url = if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) };
    (url, mode, root)
}

fn client_config(verify: Verify, root: Option<&str>) -> Result<ClientConfig, DbError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| DbError::Url(error.to_string()))?;
    let inner = match verify {
        Verify::Nothing => None,
        Verify::Chain | Verify::ChainAndHost => Some(
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots(root)?), provider.clone())
                .build()
                .map_err(|error| DbError::Url(format!("sslrootcert: {error}")))?,
        ),
    };
    let verifier = Verifier { verify, inner, provider };
    Ok(builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

fn roots(path: Option<&str>) -> Result<RootCertStore, DbError> {
    let mut store = RootCertStore::empty();
    match path {
        Some(path) if path != "system" => {
            let unreadable = |error: rustls::pki_types::pem::Error| {
                DbError::Url(format!("sslrootcert {path} cannot be read: {error}"))
            };
            for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
                store
                    .add(certificate.map_err(unreadable)?)
                    .map_err(|error| DbError::Url(format!("sslrootcert {path}: {error}")))?;
            }
        }
        _ => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(store)
}

#[derive(Debug)]
struct Verifier {
    verify: Verify,
    inner: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(inner) = &self.inner else {
            return Ok(ServerCertVerified::assertion());
        };
        match inner.verify_server_cert(certificate, intermediates, host, ocsp, now) {
            // The chain is checked before the name, so a wrong name means a good chain.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.verify == Verify::Chain => Ok(ServerCertVerified::assertion()),
            outcome => outcome,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
