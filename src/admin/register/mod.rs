//! Where endpoints register themselves: HTTP on the address that `fleet.register` names.
//!
//! | request | answer |
//! |---|---|
//! | `PUT /v1/upstreams/{upstream}/endpoints/{address}` | registers, or renews: within every `renew_seconds` |
//! | `DELETE` the same | takes it back, before the endpoint goes |
//! | `GET /v1/upstreams/{upstream}` | who is a member |
//!
//! `{address}` is `10.0.0.9:8080`, `[fd00::9]:8080`, or `self:8080` for the address that the connection comes from,
//! which is what a process in a container knows of itself. `PUT` takes `weight`, `zone` and `ttl` in its query or as JSON:
//!
//! ```text
//! curl -X PUT -H "Authorization: Bearer $TOKEN" 'http://10.0.0.1:7980/v1/upstreams/app/endpoints/self:8080?ttl=30s'
//! ```

mod registrar;

pub use registrar::{MemberView, RegisterError, Registrar, Registration, Wish};
