//! The paths and addresses that rules name, in the form in which requests are compared with them.

use url::Url;

/// The parts of an address that a rule may have.
#[derive(Clone, Copy, Default)]
pub(crate) struct Allowed {
    /// Only a path, without a host.
    pub relative_only: bool,
    /// A port of the host.
    pub ports: bool,
    /// A query and a fragment.
    pub rest: bool,
}

/// Returns an address in the form in which it is compared: escaped, without `.` and `..`. The error describes the fault.
pub(crate) fn checked(text: &str, allowed: Allowed) -> Result<String, String> {
    if let Some((host, path)) = split_host(text) {
        if allowed.relative_only {
            return Err(format!("`{text}` has a host: only a path is allowed here"));
        }
        let has_port = host
            .rsplit_once(':')
            .is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
        if has_port && !allowed.ports {
            return Err(format!("`{text}` has a port, which is not supported"));
        }
        return Ok(format!("https://{host}{}", normalized(path, allowed.rest)?));
    }
    let is_path = text.starts_with('/');
    match (is_path, allowed.relative_only) {
        (true, _) => normalized(text, allowed.rest),
        (false, true) => normalized(&format!("/{text}"), allowed.rest),
        (false, false) => Err(format!(
            "`{text}` is neither a path, which begins with `/`, nor an address, which begins with `https://`"
        )),
    }
}

/// Returns the host and the path of an https address.
fn split_host(text: &str) -> Option<(&str, &str)> {
    let rest = text.strip_prefix("https://")?.trim_start_matches('/');
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    (!host.is_empty()).then_some((host, path))
}

/// Returns whether an address has a host.
pub(crate) fn has_host(text: &str) -> bool {
    split_host(text).is_some()
}

fn normalized(path: &str, with_rest: bool) -> Result<String, String> {
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let base = Url::parse("relative://").expect("BUG: an address");
    let url = base.join(&format!("//{path}")).map_err(|error| format!("`{path}` can't be read as a path: {error}"))?;
    let mut text = url.path().to_owned();
    if with_rest {
        text.extend(url.query().into_iter().flat_map(|query| ["?", query]));
        text.extend(url.fragment().into_iter().flat_map(|fragment| ["#", fragment]));
    }
    Ok(text)
}
