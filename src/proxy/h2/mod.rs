//! HTTP/2 towards clients and endpoints.

#[cfg_attr(
    not(test),
    expect(dead_code, reason = "the connection that feeds it comes next")
)]
mod meter;
