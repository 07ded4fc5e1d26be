//! Which quota a request falls under.
//!
//! Policies are asked in the order in which they are written and the first that matches wins; the
//! defaults come last. A path matches a prefix at a segment boundary, as sensitive paths do:
//! `/search` holds `/search` and `/search/x`, not `/searching`.
//!
//! # Security
//! A path that can be read in several ways (`/static/..;/search`) is judged in every plausible
//! reading, and the strictest of the policies that these readings lead to applies, so that no
//! encoding leads to a laxer one. Letter case of the path does not count.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::Quota;
use crate::sensitive_path::{Coverage, PathPrefixes};

/// Names that headers use for the built-in quotas.
const RESERVED: [&str; 3] = ["anonymous", "authenticated", "proxy"];

/// A quota of its own for some paths and methods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// What headers, logs and counters call it: 1 to 64 visible ASCII characters or spaces,
    /// without `"`, `\` and `|`.
    pub name: String,
    /// Path prefixes, each beginning with `/`; none means every path.
    #[serde(default)]
    pub paths: Vec<String>,
    /// Request methods; none means every method.
    #[serde(default)]
    pub methods: Vec<String>,
    /// The quota of a client without an identity.
    #[serde(default = "default_anonymous")]
    pub anonymous: Quota,
    /// The quota of a client with an identity.
    #[serde(default = "default_authenticated")]
    pub authenticated: Quota,
    /// Counts what it would refuse, and refuses nothing.
    #[serde(default)]
    pub dry_run: bool,
}

fn default_anonymous() -> Quota {
    Quota::ANONYMOUS
}

fn default_authenticated() -> Quota {
    Quota::AUTHENTICATED
}

/// As what a client makes its request; decides among the quotas of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Known by its address alone.
    Anonymous,
    /// Known by an identity.
    Authenticated,
    /// A trusted proxy itself, or someone whom the address does not tell apart from it.
    Proxy,
}

/// The quota that a request falls under, with the name that headers and counters give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied<'a> {
    /// The policy's own name, or `anonymous`, `authenticated`, `proxy`.
    pub name: &'a str,
    /// How much is admitted.
    pub quota: Quota,
    /// Whether a refusal is only counted.
    pub dry_run: bool,
}

/// Why a list of policies cannot be used. The messages say what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The name cannot stand in a header field (RFC 9651, a string without escapes).
    #[error(
        "quota policy name `{0}`: write 1 to 64 ASCII letters, digits, spaces or marks other than \" \\ and |"
    )]
    Name(String),
    /// The name belongs to a built-in quota.
    #[error(
        "quota policy name `{0}` is taken by a default; to replace the defaults name a policy \
         differently and give it no paths"
    )]
    Reserved(String),
    /// Two policies have one name.
    #[error("two quota policies are called `{0}`: give each a name of its own")]
    Twice(String),
    /// A prefix does not begin with `/`, or holds a query or fragment.
    #[error("quota policy `{name}`: path `{path}` must begin with / and hold neither ? nor #")]
    Path {
        /// The policy's name.
        name: String,
        /// The prefix as written.
        path: String,
    },
    /// A method is not a token (RFC 9110, 5.6.2).
    #[error("quota policy `{name}`: `{method}` is not a request method; write one like GET")]
    Method {
        /// The policy's name.
        name: String,
        /// The method as written.
        method: String,
    },
    /// A quota that no text could have written.
    #[error("quota policy `{name}`: the quota {quota} must have a limit and a period above zero")]
    Quota {
        /// The policy's name.
        name: String,
        /// The quota.
        quota: Quota,
    },
}

/// All policies in their order, and the defaults behind them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policies {
    custom: Box<[Watched]>,
}

/// A policy that is ready to be held against requests.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Watched {
    policy: Policy,
    /// `None` holds every target, even one that is no path.
    paths: Option<PathPrefixes>,
}

impl Policies {
    /// Checks the policies and keeps them in this order.
    ///
    /// # Errors
    /// A [`PolicyError`] for the first that cannot be used.
    pub fn new(policies: Vec<Policy>) -> Result<Policies, PolicyError> {
        let mut names = HashSet::new();
        for policy in &policies {
            check(policy)?;
            if !names.insert(policy.name.as_str()) {
                return Err(PolicyError::Twice(policy.name.clone()));
            }
        }
        drop(names);
        let watched = |policy: Policy| {
            let paths = (!policy.paths.is_empty()).then(|| PathPrefixes::new(&policy.paths));
            Watched { policy, paths }
        };
        Ok(Policies { custom: policies.into_iter().map(watched).collect() })
    }

    /// The names under which requests of an address may be counted.
    pub fn of_addresses(&self) -> impl Iterator<Item = &str> {
        let custom = self.custom.iter().map(|watched| watched.policy.name.as_str());
        let defaults = [Standing::Anonymous, Standing::Proxy].map(|one| default_of(one).name);
        custom.chain(defaults)
    }

    /// The quota a request falls under: the first policy that matches, or the default.
    ///
    /// `path` is as received, percent-encoding kept. A proxy's own requests match no policy.
    #[inline]
    pub fn apply(&self, standing: Standing, method: &str, path: &str) -> Applied<'_> {
        match standing {
            Standing::Proxy => default_of(standing),
            _ if self.custom.is_empty() => default_of(standing),
            _ => self.first_or_strictest(standing, method, path),
        }
    }

    fn first_or_strictest(&self, standing: Standing, method: &str, path: &str) -> Applied<'_> {
        let mut strictest = None;
        for watched in self.custom.iter().filter(|watched| watched.holds_method(method)) {
            match watched.coverage(path) {
                Coverage::No => {}
                Coverage::InSomeReadings => {
                    strictest = Some(stricter(strictest, watched.applied(standing)));
                }
                Coverage::InEveryReading => return stricter(strictest, watched.applied(standing)),
            }
        }
        stricter(strictest, default_of(standing))
    }
}

/// Of what some readings lead to and what others do.
fn stricter<'a>(some: Option<Applied<'a>>, other: Applied<'a>) -> Applied<'a> {
    some.filter(|some| !other.is_stricter_than(some)).unwrap_or(other)
}

impl Watched {
    fn holds_method(&self, method: &str) -> bool {
        let own = &self.policy.methods;
        own.is_empty() || own.iter().any(|own| own.eq_ignore_ascii_case(method))
    }

    fn coverage(&self, path: &str) -> Coverage {
        self.paths.as_ref().map_or(Coverage::InEveryReading, |paths| paths.coverage(path))
    }

    fn applied(&self, standing: Standing) -> Applied<'_> {
        let Policy { name, anonymous, authenticated, dry_run, .. } = &self.policy;
        let quota = match standing {
            Standing::Authenticated => *authenticated,
            Standing::Anonymous | Standing::Proxy => *anonymous,
        };
        Applied { name, quota, dry_run: *dry_run }
    }
}

impl Applied<'_> {
    fn is_stricter_than(&self, other: &Applied<'_>) -> bool {
        match (self.dry_run, other.dry_run) {
            (false, true) => true,
            (true, false) => false,
            _ => self.quota.is_stricter_than(other.quota),
        }
    }
}

fn default_of(standing: Standing) -> Applied<'static> {
    let (name, quota) = match standing {
        Standing::Anonymous => ("anonymous", Quota::ANONYMOUS),
        Standing::Authenticated => ("authenticated", Quota::AUTHENTICATED),
        Standing::Proxy => ("proxy", Quota::PROXY),
    };
    Applied { name, quota, dry_run: false }
}

fn check(policy: &Policy) -> Result<(), PolicyError> {
    let name = &policy.name;
    let in_field = |byte: u8| matches!(byte, 0x20..=0x7e) && !matches!(byte, b'"' | b'\\' | b'|');
    if name.is_empty() || name.len() > 64 || !name.bytes().all(in_field) {
        return Err(PolicyError::Name(name.clone()));
    }
    if RESERVED.contains(&name.as_str()) {
        return Err(PolicyError::Reserved(name.clone()));
    }
    for path in &policy.paths {
        if !path.starts_with('/') || path.contains(['?', '#']) {
            return Err(PolicyError::Path { name: name.clone(), path: path.clone() });
        }
    }
    for method in &policy.methods {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if method.is_empty() || !method.bytes().all(token) {
            return Err(PolicyError::Method { name: name.clone(), method: method.clone() });
        }
    }
    for quota in [policy.anonymous, policy.authenticated] {
        if quota.limit == 0 || quota.period.is_zero() {
            return Err(PolicyError::Quota { name: name.clone(), quota });
        }
    }
    Ok(())
}
