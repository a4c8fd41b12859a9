//! Where endpoints register themselves: HTTP on the address that `fleet.register` names.
//!
//! | request | answer |
//! |---|---|
//! | `PUT /v1/upstreams/{upstream}/endpoints/{address}` | registers (201), or renews (200): to be repeated every `renew_seconds` |
//! | `DELETE` the same | takes it back, before the endpoint goes |
//! | `GET /v1/upstreams/{upstream}` | who is a member |
//!
//! `{address}` is `10.0.0.9:8080`, `%5Bfd00::9%5D:8080`, or `self:8080` for the address that the connection comes
//! from, which is what a process in a container may not know of itself. `PUT` takes `weight` (1), `zone` (none) and
//! `ttl` (30 s, or `max_ttl` where that is less) in its query or as JSON. Every request shows a token:
//!
//! ```text
//! curl -X PUT -H "Authorization: Bearer $TOKEN" 'http://10.0.0.1:7980/v1/upstreams/app/endpoints/self:8080?ttl=30s'
//! ```
//! Renewals stay at the peer that is asked; an endpoint may register with several, and is a member while one of them
//! says so.

mod registrar;
mod rules;
mod serve;
mod wish;

pub use registrar::{MemberView, RegisterError, Registrar, Registration, Wish};
pub use rules::{Rules, TokenError};
pub use serve::{Desk, serve};

#[cfg(test)]
mod tests;
