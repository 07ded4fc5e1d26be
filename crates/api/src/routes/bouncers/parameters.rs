//! What a bouncer asks for, in the query of its request. Unknown parameters are ignored: every version of
//! every bouncer has others.

use std::collections::HashMap;

use actix_web::{HttpRequest, web};
use ipwarden_core::decisions::{Filter, Scope};
use ipwarden_engine::network::Network;

use super::Refused;

/// The parameters of a query; of one that is there twice the first counts.
pub(super) struct Parameters(HashMap<String, String>);

/// Which decisions are asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum About {
    /// Those that hold all of this.
    Holding(Network),
    /// Those about what lies inside this.
    Inside(Network),
    /// The one about exactly this.
    Exactly(Network),
    /// All.
    All,
    /// None: nothing can be what is asked for.
    Nothing,
}

impl Parameters {
    pub(super) fn of(request: &HttpRequest) -> Result<Parameters, Refused> {
        let pairs: Vec<(String, String)> = web::Query::from_query(request.query_string())
            .map(web::Query::into_inner)
            .map_err(|error| Refused::Malformed(format!("the query cannot be read: {error}")))?;
        let mut first = HashMap::new();
        for (name, value) in pairs {
            first.entry(name).or_insert(value);
        }
        Ok(Parameters(first))
    }

    /// What decisions have to be.
    pub(super) fn filter(&self) -> Filter {
        let scopes = self.list("scopes").or_else(|| self.list("scope"));
        Filter {
            scopes: scopes.map(|names| names.iter().filter_map(|name| scope(name)).collect()),
            origins: self.list("origins"),
            containing: self.list("scenarios_containing").unwrap_or_default(),
            not_containing: self.list("scenarios_not_containing").unwrap_or_default(),
        }
    }

    /// Whom decisions have to be about.
    pub(super) fn about(&self) -> Result<About, Refused> {
        // Everything that is blocked here is banned.
        if self.get("type").is_some_and(|kind| !kind.eq_ignore_ascii_case("ban")) {
            return Ok(About::Nothing);
        }
        let contains = self.flag("contains")?.unwrap_or(true);
        let within =
            |network| if contains { About::Holding(network) } else { About::Inside(network) };
        if let Some(text) = self.get("ip") {
            return match text.parse() {
                Ok(network) if Network::is_address(&network) => Ok(within(network)),
                Ok(_) => Err(wrong("ip", text, "is a network; ask for it with `range`")),
                Err(error) => Err(wrong("ip", text, error)),
            };
        }
        if let Some(text) = self.get("range") {
            return text.parse().map(within).map_err(|error| wrong("range", text, error));
        }
        match self.get("value") {
            Some(text) => Ok(text.parse().map_or(About::Nothing, About::Exactly)),
            None => Ok(About::All),
        }
    }

    /// A parameter that is true or false, in the words that Go's `strconv.ParseBool` takes.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, Refused> {
        match self.get(name) {
            None => Ok(None),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(Some(true)),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(Some(false)),
            Some(other) => Err(wrong(name, other, "is neither true nor false")),
        }
    }

    /// A parameter that counts something.
    pub(super) fn count(&self, name: &str) -> Result<Option<usize>, Refused> {
        let Some(text) = self.get(name) else { return Ok(None) };
        match text.parse() {
            Ok(count) => Ok(Some(count)),
            Err(_) => Err(wrong(name, text, "is no whole number of 0 or more")),
        }
    }

    /// A parameter with its value; one without is as good as none.
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    fn list(&self, name: &str) -> Option<Vec<String>> {
        let parts = self.get(name)?.split(',').map(str::trim).filter(|part| !part.is_empty());
        Some(parts.map(str::to_owned).collect())
    }
}

fn scope(name: &str) -> Option<Scope> {
    [Scope::Ip, Scope::Range].into_iter().find(|scope| name.eq_ignore_ascii_case(scope.as_str()))
}

fn wrong(name: &str, value: &str, what: impl std::fmt::Display) -> Refused {
    let value: String = value.escape_debug().take(60).collect();
    Refused::Malformed(format!("{name}: `{value}`: {what}"))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn of(query: &str) -> Parameters {
        let request = TestRequest::get().uri(&format!("/v1/decisions?{query}")).to_http_request();
        Parameters::of(&request).unwrap()
    }

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn a_query_says_whom_decisions_are_about() {
        for (query, about) in [
            ("", About::All),
            ("ip=", About::All),
            ("ip=192.0.2.1", About::Holding(network("192.0.2.1"))),
            ("ip=::ffff:192.0.2.1", About::Holding(network("192.0.2.1"))),
            ("ip=192.0.2.1&contains=false", About::Inside(network("192.0.2.1"))),
            ("range=192.0.2.0/24", About::Holding(network("192.0.2.0/24"))),
            ("range=192.0.2.0%2F24&contains=0", About::Inside(network("192.0.2.0/24"))),
            ("value=192.0.2.1", About::Exactly(network("192.0.2.1"))),
            ("value=FR", About::Nothing),
            ("ip=192.0.2.1&type=ban", About::Holding(network("192.0.2.1"))),
            ("ip=192.0.2.1&type=captcha", About::Nothing),
            ("ip=192.0.2.1&ip=192.0.2.2&what=ever", About::Holding(network("192.0.2.1"))),
        ] {
            assert_eq!(of(query).about().unwrap(), about, "{query}");
        }
    }

    #[test]
    fn a_wrong_value_is_named_with_its_parameter() {
        for (query, named) in [
            ("ip=nobody", "ip"),
            ("ip=192.0.2.0/24", "ip"),
            ("ip=192.0.2.01", "ip"),
            ("range=192.0.2.0/33", "range"),
            ("ip=192.0.2.1&contains=perhaps", "contains"),
        ] {
            let error = of(query).about().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{named}: ")), "{query}: {error}");
        }
        for value in ["-1", "many", "1.5"] {
            assert!(of(&format!("limit={value}")).count("limit").is_err(), "{value}");
        }
    }

    #[test]
    fn scopes_are_understood_in_any_case_and_unknown_ones_match_nothing() {
        assert_eq!(of("").filter().scopes, None);
        assert_eq!(of("scopes=ip,Range").filter().scopes, Some(vec![Scope::Ip, Scope::Range]));
        assert_eq!(of("scope=IP").filter().scopes, Some(vec![Scope::Ip]));
        assert_eq!(of("scopes=country").filter().scopes, Some(vec![]));
    }
}
