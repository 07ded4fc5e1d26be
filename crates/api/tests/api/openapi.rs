//! The description of the API: for programs, and for people.

use reqwest::{Client, Method, StatusCode};

use crate::common::{Bed, Launch, field};

#[tokio::test]
async fn the_document_is_served_and_its_page_loads_nothing_and_runs_nothing() {
    let bed = Bed::embedded(Launch::default()).await;
    let (status, document) = bed.api(Method::GET, "/api/v1/openapi.json", None).await;
    assert_eq!((status, document["openapi"].as_str()), (StatusCode::OK, Some("3.1.0")));
    let url = format!("{}/api/docs", bed.first().control);
    let page = Client::new().get(url).bearer_auth(&bed.admin).send().await.unwrap();
    assert_eq!(page.status(), StatusCode::OK);
    let policy = field(&page, "content-security-policy").to_owned();
    assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
    let text = page.text().await.unwrap();
    for path in document["paths"].as_object().unwrap().keys() {
        assert!(text.contains(path.as_str()), "{path} is not shown");
    }
    for loaded in ["<script", "<link rel=\"stylesheet", " src=", "http://", "https://", "style="] {
        assert!(!text.contains(loaded), "{loaded}");
    }
    let (status, _) = bed.first().stranger(Method::GET, "/api/docs", None, None).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}
