//! Refusals as RFC 9457 has them: `application/problem+json`.

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::{Value, json};

/// A refusal. Its `type` is `about:blank` (the status says the kind); what machines tell cases apart
/// by is the member `code`.
#[derive(Debug)]
pub(in crate::admin) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    diagnostics: Option<Value>,
    allow: Option<String>,
}

// === impl Problem ===

impl Problem {
    pub(in crate::admin) fn new(
        status: StatusCode,
        code: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            diagnostics: None,
            allow: None,
        }
    }

    /// The path exists for other methods.
    pub(in crate::admin) fn method(allowed: &[Method]) -> Self {
        let allow: Vec<&str> = allowed.iter().map(Method::as_str).collect();
        let allow = allow.join(", ");
        let detail = format!("only {allow} here");
        Self {
            allow: Some(allow),
            ..Self::new(StatusCode::METHOD_NOT_ALLOWED, "method", detail)
        }
    }

    /// With what a configuration has wrong, each with its place.
    pub(super) fn with_diagnostics(self, diagnostics: Vec<Value>) -> Self {
        Self {
            diagnostics: Some(diagnostics.into()),
            ..self
        }
    }

    pub(in crate::admin) fn status(&self) -> StatusCode {
        self.status
    }

    pub(in crate::admin) fn code(&self) -> &'static str {
        self.code
    }

    pub(in crate::admin) fn into_response(self) -> Response<Full<Bytes>> {
        let mut body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason(),
            "status": self.status.as_u16(),
            "code": self.code,
            "detail": self.detail,
        });
        if let Some(diagnostics) = self.diagnostics {
            body["diagnostics"] = diagnostics;
        }
        let mut response = Response::new(Full::new(format!("{body:#}\n").into()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(allow) = self.allow.and_then(|a| HeaderValue::from_str(&a).ok()) {
            headers.insert(header::ALLOW, allow);
        }
        if self.status == StatusCode::FORBIDDEN {
            // There is nothing here for this client: its place is for another.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            // What is in the way takes seconds, not minutes.
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
