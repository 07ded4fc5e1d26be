//! Which decisions somebody wants to hear of.

use std::sync::Arc;

use ipwarden_engine::network::Network;

use super::Cause;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One address.
    Ip,
    /// A network of several.
    Range,
}

impl Scope {
    /// What this value is.
    pub fn of(value: &Network) -> Scope {
        if value.is_address() { Scope::Ip } else { Scope::Range }
    }

    /// The word that bouncers compare with, letter by letter.
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Ip => "Ip",
            Scope::Range => "Range",
        }
    }
}

/// What decisions have to be to be told; by default all are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of one of these.
    pub scopes: Option<Vec<Scope>>,
    /// Of one of these origins.
    pub origins: Option<Vec<String>>,
    /// With one of these in the scenario.
    pub containing: Vec<String>,
    /// With none of these in the scenario.
    pub not_containing: Vec<String>,
}

impl Filter {
    /// Whether decisions about this value are wanted.
    pub fn wants_value(&self, value: &Network) -> bool {
        self.scopes.as_ref().is_none_or(|scopes| scopes.contains(&Scope::of(value)))
    }

    /// Whether decisions of this origin are wanted.
    pub fn wants_origin(&self, origin: &str) -> bool {
        self.origins.as_ref().is_none_or(|wanted| wanted.iter().any(|one| one == origin))
    }

    /// Whether decisions of this cause are wanted.
    pub fn wants_cause(&self, cause: &Arc<Cause>) -> bool {
        let Filter { containing, not_containing, .. } = self;
        if !self.wants_origin(&cause.origin) {
            return false;
        }
        if containing.is_empty() && not_containing.is_empty() {
            return true;
        }
        let scenario = cause.scenario();
        (containing.is_empty() || containing.iter().any(|part| scenario.contains(&**part)))
            && !not_containing.iter().any(|part| scenario.contains(&**part))
    }
}

impl Cause {
    /// What bouncers call the reason. They take it for granted that there is one.
    pub fn scenario(&self) -> &str {
        if self.reason.is_empty() { &self.origin } else { &self.reason }
    }
}
