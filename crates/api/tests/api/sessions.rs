//! People who sign in, with a browser or with a program: what a session opens, where, and for how long.
#![expect(clippy::unwrap_used, reason = "tests")]

use futures_util::FutureExt as _;
use ipwarden_core::keys::Role;
use ipwarden_core::lists::{self, Actor};
use ipwarden_core::users::{self, Passwords};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

use crate::common::{Bed, Launch, PATIENCE, Replica, eventually, field, now};

const PASSWORD: &str = "correct horse battery";

/// Adds somebody behind the API's back, as `ipctl user add` does.
async fn add(bed: &Bed, name: &'static str, role: Role) {
    let hash = Passwords::default().hash(PASSWORD.to_owned()).await.unwrap();
    let now = now();
    let actor = Actor { name: "cli:test".to_owned(), address: None };
    let added = bed.db.transaction(move |conn| {
        async move {
            let at = lists::lock(conn, now).await?;
            users::add_in(conn, name, role, hash, &actor, at).await
        }
        .boxed()
    });
    assert!(added.await.unwrap().is_some());
}

/// A browser, as far as a server can tell.
struct Browser {
    client: Client,
    base: String,
    cookie: String,
    token: String,
}

impl Browser {
    fn at(base: &str) -> Browser {
        let client = Client::builder().redirect(Policy::none());
        // Each address has a few wrong passwords only.
        let client = client.local_address(Replica::a_stranger()).build().unwrap();
        Browser { client, base: base.to_owned(), cookie: String::new(), token: String::new() }
    }

    fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        if self.cookie.is_empty() { request } else { request.header("cookie", &self.cookie) }
    }

    /// With what a page of ours sends.
    fn change(&self, method: Method, path: &str) -> RequestBuilder {
        self.ask(method, path).header("origin", &self.base).header("x-csrf-token", &self.token)
    }

    async fn sign_in(&mut self, name: &str, password: &str) -> (StatusCode, Value) {
        let body = json!({ "name": name, "password": password });
        let request = self.ask(Method::POST, "/login").header("origin", &self.base).json(&body);
        let answer = request.send().await.unwrap();
        if let Some((cookie, _)) = field(&answer, "set-cookie").split_once(';') {
            self.cookie = cookie.to_owned();
        }
        let status = answer.status();
        let who: Value = answer.json().await.unwrap();
        self.token = who["csrf"].as_str().unwrap_or_default().to_owned();
        (status, who)
    }

    async fn signed_in(base: &str, name: &str) -> Browser {
        let mut browser = Browser::at(base);
        let (status, who) = browser.sign_in(name, PASSWORD).await;
        assert_eq!(status, StatusCode::OK, "{who}");
        browser
    }

    async fn status(&self, method: Method, path: &str) -> StatusCode {
        self.ask(method, path).send().await.unwrap().status()
    }
}

async fn json(answer: Response) -> (StatusCode, Value) {
    (answer.status(), answer.json().await.unwrap())
}

#[tokio::test]
async fn whoever_knows_the_password_has_what_his_role_has_on_every_replica() {
    for bed in Bed::each(|launch| launch).await {
        add(&bed, "anna", Role::Operator).await;
        let last = bed.replicas.last().unwrap();
        let mut anna = Browser::at(&bed.first().control);
        let answer = anna
            .ask(Method::POST, "/login")
            .json(&json!({ "name": "anna", "password": PASSWORD }))
            .send()
            .await
            .unwrap();
        let cookie = field(&answer, "set-cookie").to_owned();
        let (value, attributes) = cookie.split_once("; ").unwrap();
        assert!(value.starts_with("ipwarden_control="), "{cookie}");
        assert_eq!(attributes, "Path=/; Max-Age=43200; HttpOnly; SameSite=Strict");
        anna.cookie = value.to_owned();
        let (_, who) = json(answer).await;
        assert_eq!((&who["name"], &who["role"]), (&json!("user:anna"), &json!("operator")));
        anna.token = who["csrf"].as_str().unwrap().to_owned();

        // Another replica hears of her as of any change.
        anna.base = last.control.clone();
        eventually(PATIENCE, "the other replica knows her", async || {
            (anna.status(Method::GET, "/api/v1/blocks").await == StatusCode::OK).then_some(())
        })
        .await;
        let (_, session) =
            json(anna.ask(Method::GET, "/api/v1/session").send().await.unwrap()).await;
        assert_eq!(session["csrf"], who["csrf"]);
        let block =
            anna.change(Method::POST, "/api/v1/blocks").json(&json!({ "target": "203.0.113.1" }));
        let (status, made) = json(block.send().await.unwrap()).await;
        assert_eq!(
            (status, &made["created_by"]),
            (StatusCode::CREATED, &json!("user:anna")),
            "{made}"
        );
        assert_eq!(anna.status(Method::GET, "/api/v1/keys").await, StatusCode::FORBIDDEN);
        assert_eq!(anna.status(Method::GET, "/api/v1/users").await, StatusCode::FORBIDDEN);

        let (_, audit) = bed.api(Method::GET, "/api/v1/audit?limit=2", None).await;
        let line = |index: usize| {
            let row = &audit["items"][index];
            (row["action"].clone(), row["actor"].clone())
        };
        assert_eq!(line(0), (json!("block"), json!("user:anna")), "{audit}");
        assert_eq!(line(1), (json!("sign-in"), json!("user:anna")), "{audit}");
    }
}

#[tokio::test]
async fn a_session_opens_only_the_listener_that_it_was_opened_on() {
    for bed in Bed::each(|launch| launch).await {
        add(&bed, "anna", Role::Admin).await;
        let (public, control) = (&bed.first().public, &bed.first().control);
        let mut anna = Browser::signed_in(public, "anna").await;
        let (_, who) = json(anna.ask(Method::GET, "/").send().await.unwrap()).await;
        assert_eq!(who["authenticated"], true, "{who}");
        assert_eq!(
            (&who["quota"]["policy"], &who["quota"]["limit"]),
            (&json!("authenticated"), &json!(10))
        );
        // On the other listener it is nothing, under its own name or the other's.
        anna.base = control.clone();
        assert_eq!(anna.status(Method::GET, "/api/v1/blocks").await, StatusCode::UNAUTHORIZED);
        anna.cookie = anna.cookie.replace("ipwarden_session=", "ipwarden_control=");
        assert_eq!(anna.status(Method::GET, "/api/v1/blocks").await, StatusCode::UNAUTHORIZED);

        let mut anna = Browser::signed_in(control, "anna").await;
        assert_eq!(anna.status(Method::GET, "/api/v1/users").await, StatusCode::OK);
        anna.base = public.clone();
        anna.cookie = anna.cookie.replace("ipwarden_control=", "ipwarden_session=");
        let (_, who) = json(anna.ask(Method::GET, "/").send().await.unwrap()).await;
        assert_eq!(who["authenticated"], false, "{who}");
        // Two of a name: somebody has planted one.
        anna.base = control.clone();
        let cookie = anna.cookie.replace("ipwarden_session=", "ipwarden_control=");
        anna.cookie = format!("{cookie}; {cookie}");
        assert_eq!(anna.status(Method::GET, "/api/v1/users").await, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn signing_out_a_new_password_and_the_removal_end_sessions_on_every_replica() {
    for bed in Bed::each(|launch| launch).await {
        add(&bed, "anna", Role::Reader).await;
        let (first, last) = (bed.first(), bed.replicas.last().unwrap());
        let is_over = async |browser: &mut Browser| {
            for replica in [first, last] {
                browser.base = replica.control.clone();
                eventually(PATIENCE, "the session is over", async || {
                    let status = browser.status(Method::GET, "/api/v1/blocks").await;
                    (status == StatusCode::UNAUTHORIZED).then_some(())
                })
                .await;
            }
        };
        let mut one = Browser::signed_in(&first.control, "anna").await;
        let mut other = Browser::signed_in(&first.control, "anna").await;
        let out = one.change(Method::POST, "/logout").send().await.unwrap();
        assert_eq!(out.status(), StatusCode::NO_CONTENT);
        assert!(field(&out, "set-cookie").starts_with("ipwarden_control=; Path=/; Max-Age=0;"));
        // Here at once.
        assert_eq!(other.status(Method::GET, "/api/v1/blocks").await, StatusCode::UNAUTHORIZED);
        is_over(&mut one).await;
        is_over(&mut other).await;

        let mut anna = Browser::signed_in(&first.control, "anna").await;
        let body = json!({ "password": "another horse battery" });
        let (status, _) = bed.api(Method::PUT, "/api/v1/users/anna/password", Some(body)).await;
        assert_eq!(status, StatusCode::NO_CONTENT);
        is_over(&mut anna).await;
        assert_eq!(
            Browser::at(&first.control).sign_in("anna", PASSWORD).await.0,
            StatusCode::UNAUTHORIZED
        );
        let (status, _) = anna.sign_in("anna", "another horse battery").await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(
            bed.api(Method::DELETE, "/api/v1/users/anna", None).await.0,
            StatusCode::NO_CONTENT
        );
        assert_eq!(
            bed.api(Method::DELETE, "/api/v1/users/anna", None).await.0,
            StatusCode::NOT_FOUND
        );
        is_over(&mut anna).await;
    }
}

#[tokio::test]
async fn a_change_with_a_cookie_is_made_only_for_a_page_of_ours() {
    let bed = Bed::embedded(Launch::default()).await;
    add(&bed, "anna", Role::Operator).await;
    let anna = Browser::signed_in(&bed.first().control, "anna").await;
    let other = Browser::signed_in(&bed.first().control, "anna").await;
    let body = r#"{"target":"203.0.113.1"}"#;
    let own = anna.base.as_str();
    let (json, form) = ("application/json", "application/x-www-form-urlencoded");
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[], json),
        (&[("origin", own)], json),
        (&[("x-csrf-token", &anna.token)], json),
        (&[("origin", "https://evil.example"), ("x-csrf-token", &anna.token)], json),
        (&[("origin", "null"), ("x-csrf-token", &anna.token)], json),
        (&[("origin", "http://127.0.0.1:1"), ("x-csrf-token", &anna.token)], json),
        (&[("sec-fetch-site", "cross-site"), ("x-csrf-token", &anna.token)], json),
        (&[("sec-fetch-site", "same-site"), ("x-csrf-token", &anna.token)], json),
        (&[("origin", own), ("x-csrf-token", "")], json),
        (&[("origin", own), ("x-csrf-token", &other.token)], json),
        // What a form of another site can send, whatever it calls itself.
        (&[("origin", "https://evil.example")], "text/plain"),
        (&[("origin", "https://evil.example")], form),
        (&[("sec-fetch-site", "cross-site")], "text/plain"),
        (&[], "text/plain"),
    ];
    let before = bed.lists_version().await;
    for (headers, kind) in cases {
        let mut request = anna.ask(Method::POST, "/api/v1/blocks").header("content-type", *kind);
        for (name, value) in *headers {
            request = request.header(*name, *value);
        }
        let answer = request.body(body).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{headers:?} {kind}");
    }
    for path in ["/api/v1/blocks/203.0.113.1", "/api/v1/allows/203.0.113.1"] {
        assert_eq!(anna.status(Method::DELETE, path).await, StatusCode::FORBIDDEN, "{path}");
    }
    assert_eq!(anna.status(Method::POST, "/logout").await, StatusCode::FORBIDDEN);
    assert_eq!(before, bed.lists_version().await, "something was changed");
    // A browser that says no origin says where the page is from.
    let request = anna.ask(Method::POST, "/api/v1/blocks").header("sec-fetch-site", "same-origin");
    let request =
        request.header("x-csrf-token", &anna.token).header("content-type", json).body(body);
    assert_eq!(request.send().await.unwrap().status(), StatusCode::CREATED);
    // A key has to be put there on purpose.
    let request = anna.ask(Method::DELETE, "/api/v1/blocks/203.0.113.1").bearer_auth(&bed.admin);
    assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
    // Nobody is made to sign in as somebody else.
    for (name, value) in [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")] {
        let answer = Browser::at(own)
            .ask(Method::POST, "/login")
            .header(name, value)
            .json(&json!({ "name": "anna", "password": PASSWORD }))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
        assert_eq!(field(&answer, "set-cookie"), "");
    }
}

#[tokio::test]
async fn a_wrong_name_and_a_wrong_password_are_answered_alike_and_throttled_alike() {
    for bed in Bed::each(|launch| launch).await {
        add(&bed, "anna", Role::Reader).await;
        let base = &bed.first().control;
        let mut answers = Vec::new();
        for name in ["anna", "nobody", "", "no such name", "anna\u{0}", "Anna"] {
            let (status, problem) = Browser::at(base).sign_in(name, "wrong horse battery").await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{name}: {problem}");
            answers.push(problem.to_string());
        }
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");

        // From one address, whoever he says he is.
        let mut guesser = Browser::at(base);
        for guess in 0..8 {
            let (status, _) = guesser.sign_in(&format!("guess-{guess}"), PASSWORD).await;
            let silenced = guess >= 5;
            let expected =
                if silenced { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::UNAUTHORIZED };
            assert_eq!(status, expected, "{guess}");
        }
        assert_eq!(guesser.sign_in("anna", PASSWORD).await.0, StatusCode::TOO_MANY_REQUESTS);
        // For one name, from everywhere, whether somebody has it or not: `anna` and `nobody` have one each.
        for name in ["anna", "nobody"] {
            for guess in 1..12 {
                let (status, _) = Browser::at(base).sign_in(name, "wrong horse battery").await;
                let silenced = guess >= 10;
                let expected =
                    if silenced { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::UNAUTHORIZED };
                assert_eq!(status, expected, "{name} {guess}");
            }
            let (status, _) = Browser::at(base).sign_in(name, PASSWORD).await;
            assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
        }
        // Whoever guesses here keeps nobody from the other listener.
        let (status, _) = Browser::at(&bed.first().public).sign_in("anna", PASSWORD).await;
        assert_eq!(status, StatusCode::OK);
    }
}

#[tokio::test]
async fn the_pages_to_sign_in_on_work_without_scripts_and_load_nothing() {
    let bed = Bed::embedded(Launch::default()).await;
    add(&bed, "anna", Role::Reader).await;
    for (base, cookie_name, next) in [
        (&bed.first().public, "ipwarden_session", "/"),
        (&bed.first().control, "ipwarden_control", "/api/docs"),
    ] {
        let mut browser = Browser::at(base);
        let html = |request: RequestBuilder| request.header("accept", "text/html");
        let page = html(browser.ask(Method::GET, "/login")).send().await.unwrap();
        assert_eq!(page.status(), StatusCode::OK);
        let policy = field(&page, "content-security-policy").to_owned();
        assert!(
            policy.starts_with("default-src 'none';") && !policy.contains("unsafe"),
            "{policy}"
        );
        assert!(policy.contains("form-action 'self'") && policy.contains("frame-ancestors 'none'"));
        let text = page.text().await.unwrap();
        assert!(text.contains("action=\"/login\"") && !text.contains("<script"), "{text}");
        assert!(!text.contains("http://") && !text.contains("https://"), "{text}");

        let form = "application/x-www-form-urlencoded";
        let send = |browser: &Browser, path: &str, body: String| {
            let request =
                html(browser.ask(Method::POST, path)).header("origin", "https://example.org");
            request.header("host", "example.org").header("content-type", form).body(body)
        };
        let wrong = send(&browser, "/login", "name=anna&password=%3Cscript%3E".to_owned());
        let wrong = wrong.send().await.unwrap();
        assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
        let text = wrong.text().await.unwrap();
        assert!(text.contains("Wrong name or password.") && !text.contains("<script"), "{text}");

        let right = format!("name=anna&password={}", PASSWORD.replace(' ', "+"));
        let right = send(&browser, "/login", right).send().await.unwrap();
        assert_eq!((right.status(), field(&right, "location")), (StatusCode::SEE_OTHER, next));
        let cookie = field(&right, "set-cookie").to_owned();
        // It came over TLS, as its origin says.
        assert!(cookie.starts_with(cookie_name) && cookie.ends_with("; Secure"), "{cookie}");
        browser.cookie = cookie.split(';').next().unwrap().to_owned();

        let page = html(browser.ask(Method::GET, "/login")).send().await.unwrap();
        let text = page.text().await.unwrap();
        assert!(text.contains("You are anna, with the role reader."), "{text}");
        let token = text.split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap();
        let refused = send(&browser, "/logout", "csrf=0".to_owned()).send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::FORBIDDEN);
        let out = send(&browser, "/logout", format!("csrf={token}")).send().await.unwrap();
        assert_eq!((out.status(), field(&out, "location")), (StatusCode::SEE_OTHER, "/login"));
        let text = browser.ask(Method::GET, "/login").send().await.unwrap().text().await.unwrap();
        assert!(text.contains("action=\"/login\""), "signed out: {text}");
    }
}

#[tokio::test]
async fn what_is_sent_to_sign_in_with_is_read_strictly() {
    let bed = Bed::embedded(Launch::default()).await;
    let large = format!(r#"{{"name":"a","password":"{}"}}"#, "x".repeat(9 << 10));
    let cases: &[(&str, &str, u16)] = &[
        ("application/json", "", 400),
        ("application/json", "[]", 400),
        ("application/json", "null", 400),
        ("application/json", r#"{"name":"a"}"#, 400),
        ("application/json", r#"{"name":"a","password":5}"#, 400),
        ("application/json", r#"{"name":"a","name":"b","password":"x"}"#, 400),
        ("application/json", r#"{"name":"a","password":"x","next":"//evil.example"}"#, 400),
        ("application/json", r#"{"name":"\ud800","password":"x"}"#, 400),
        ("application/json", &large, 413),
        ("application/x-www-form-urlencoded", "name=a", 400),
        ("application/x-www-form-urlencoded", "name=a&password=x&next=/", 400),
        ("text/plain", r#"{"name":"a","password":"x"}"#, 415),
        ("application/json", r#"{"name":"a","password":""}"#, 401),
    ];
    for base in [&bed.first().public, &bed.first().control] {
        for (kind, body, status) in cases {
            let request =
                Browser::at(base).ask(Method::POST, "/login").header("content-type", *kind);
            let answer = request.body((*body).to_owned()).send().await.unwrap();
            assert_eq!(answer.status().as_u16(), *status, "{kind} {:.60}", body);
        }
    }
}

#[tokio::test]
async fn users_are_added_listed_and_removed_by_admins_and_their_names_and_passwords_are_fit() {
    for bed in Bed::each(|launch| launch).await {
        let body = json!({ "name": "ben", "role": "reader", "password": PASSWORD });
        let (status, made) = bed.api(Method::POST, "/api/v1/users", Some(body.clone())).await;
        assert_eq!(status, StatusCode::CREATED, "{made}");
        insta::assert_json_snapshot!("user_made", made, {
            ".created_at" => "[time]", ".created_by" => "[admin]", ".password_changed_at" => "[time]",
        });
        let (status, _) = bed.api(Method::POST, "/api/v1/users", Some(body)).await;
        assert_eq!(status, StatusCode::CONFLICT);
        let (_, all) = bed.api(Method::GET, "/api/v1/users", None).await;
        assert_eq!(all["items"].as_array().unwrap().len(), 1);
        assert!(!all.to_string().contains("argon2") && !all.to_string().contains("hash"), "{all}");
        for (body, status, named) in [
            (json!({ "name": "-", "role": "reader", "password": PASSWORD }), 422, "name"),
            (json!({ "name": "", "role": "reader", "password": PASSWORD }), 422, "name"),
            (json!({ "name": "cy", "role": "bouncer", "password": PASSWORD }), 422, "role"),
            (json!({ "name": "cy", "role": "root", "password": PASSWORD }), 400, "role"),
            (json!({ "name": "cy", "role": "user", "password": "short" }), 422, "password"),
            (
                json!({ "name": "cy", "role": "user", "password": "x".repeat(1_025) }),
                422,
                "password",
            ),
            (json!({ "name": "cy", "role": "user" }), 400, "password"),
        ] {
            let (answered, problem) = bed.api(Method::POST, "/api/v1/users", Some(body)).await;
            assert_eq!(answered.as_u16(), status, "{problem}");
            assert_eq!(problem["errors"][0]["field"], named, "{problem}");
            assert!(!problem.to_string().contains(PASSWORD), "{problem}");
        }
        let short = json!({ "password": "short" });
        let (status, _) = bed.api(Method::PUT, "/api/v1/users/ben/password", Some(short)).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        for name in ["nobody", "a%20b", "%00", "%FF"] {
            let path = format!("/api/v1/users/{name}");
            let (status, _) = bed.api(Method::DELETE, &path, None).await;
            assert_eq!(status, StatusCode::NOT_FOUND, "{name}");
        }
    }
}
