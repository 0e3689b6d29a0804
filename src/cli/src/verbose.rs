//! The requests that `--verbose` shows: method, path, status and time of each. Neither headers nor bodies, nor the query
//! of an address; ids are masked.

use flotilla_deploy::cloudflare::{Sent, observe_requests};
use flotilla_model::text::mask_ids;

use super::ui::{Style, Ui, clean};

/// Shows each request on stderr from now on.
pub(super) fn show_requests(ui: &Ui) {
    let ui = ui.clone();
    observe_requests(move |sent| ui.line(&ui.paint(Style::Dim, &line(sent))));
}

fn line(sent: &Sent<'_>) -> String {
    let answer = match sent.answer {
        Ok(status) => status.to_string(),
        Err(kind) => format!("failed ({kind:?})"),
    };
    let address = mask_ids(&format!("{}{}", sent.host, sent.path));
    clean(&format!("{} {address} → {answer} in {} ms", sent.method, sent.time.as_millis()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use flotilla_deploy::cloudflare::Kind;

    use super::*;

    #[test]
    fn ids_are_masked() {
        let path = "/client/v4/accounts/0123456789abcdef0123456789abcdef/workers/scripts/acme";
        let sent =
            Sent { method: "PUT", host: "api.cloudflare.com", path, answer: Ok(200), time: Duration::from_millis(83) };
        let shown = "PUT api.cloudflare.com/client/v4/accounts/01234567…/workers/scripts/acme → 200 in 83 ms";
        assert_eq!(line(&sent), shown);
        assert_eq!(line(&Sent { answer: Err(Kind::Timeout), ..sent }), shown.replace("200", "failed (Timeout)"));
    }
}
