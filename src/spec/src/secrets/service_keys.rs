//! The keys of calls between workers, which are derived from one secret of the fleet.

use secrecy::{ExposeSecret as _, SecretString};

use flotilla_model::service_key;

use super::{Finding, FoundSecret, Secrets};

impl Secrets {
    /// Derives a key of calls between workers.
    pub(super) fn service_key(&self, path: &str) -> Finding {
        let found = match self.find_token(service_key::SOURCE) {
            Finding::Value(found) => found,
            Finding::Nowhere | Finding::Hidden { .. } if self.made_up => {
                let value = SecretString::from(format!("made-up-for-{}", service_key::SOURCE));
                FoundSecret { value, source: "made up".to_owned(), name: service_key::SOURCE.to_owned() }
            }
            none => return none,
        };
        let previous = match self.find_token(service_key::PREVIOUS) {
            Finding::Value(previous) => Some(previous.value),
            Finding::Nowhere => None,
            hidden @ Finding::Hidden { .. } if !self.made_up => return hidden,
            Finding::Hidden { .. } => None,
        };
        let (source, previous) = (found.value.expose_secret(), previous.as_ref().map(SecretString::expose_secret));
        let previous = previous.filter(|previous| *previous != source);
        let value = SecretString::from(service_key::derive(source, previous, path));
        Finding::Value(FoundSecret { value, ..found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flotilla_model::spec::{Environment, SecretSource};
    use std::path::Path;

    const NAME: &str = "FLOTILLA_SERVICE_KEY/production/acme/api";

    fn found(root: &Path, listed: &[SecretSource], made_up: bool) -> String {
        let mut secrets = Secrets::open(root, Some(listed), None, made_up).unwrap();
        secrets.environment.clear();
        match secrets.find("acme", Environment::Production, NAME) {
            Finding::Value(found) => format!("{} from {}", found.value.expose_secret(), found.source),
            Finding::Nowhere => "nowhere".to_owned(),
            Finding::Hidden { source, .. } => format!("hidden by {source}"),
        }
    }

    #[test]
    fn a_key_is_derived_from_the_fleets_secret_and_never_a_customers() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let write = |text: &str| std::fs::write(root.join("a.env"), text).unwrap();
        let listed = [SecretSource { dotenv: Some("a.env".to_owned()), ..SecretSource::default() }];
        let derived =
            |source, previous| format!("{} from a.env", service_key::derive(source, previous, "production/acme/api"));
        write("ACME__FLOTILLA_SERVICE_KEY=own\n");
        assert_eq!(found(root, &listed, false), "nowhere");
        assert!(found(root, &listed, true).ends_with(" from made up"));
        write("FLOTILLA_SERVICE_KEY=new\nACME__FLOTILLA_SERVICE_KEY=own\n");
        assert_eq!(found(root, &listed, false), derived("new", None));
        write("FLOTILLA_SERVICE_KEY=new\nFLOTILLA_SERVICE_KEY_PREVIOUS=old\n");
        assert_eq!(found(root, &listed, false), derived("new", Some("old")));
        // The rotation was interrupted before the new value was written; or it has ended.
        for previous in ["new", ""] {
            write(&format!("FLOTILLA_SERVICE_KEY=new\nFLOTILLA_SERVICE_KEY_PREVIOUS={previous}\n"));
            assert_eq!(found(root, &listed, false), derived("new", None));
        }
    }

    #[test]
    fn a_source_that_cannot_be_read_hides_it_and_its_previous_value() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::write(root.join("s.age"), "no key opens it").unwrap();
        std::fs::write(root.join("a.env"), "FLOTILLA_SERVICE_KEY=new\n").unwrap();
        let identity = Some(flotilla_model::spec::IdentityPlace { env: Some("NO_SUCH_KEY".to_owned()), file: None });
        let closed = SecretSource { age: Some("s.age".to_owned()), identity, ..SecretSource::default() };
        let clear = SecretSource { dotenv: Some("a.env".to_owned()), ..SecretSource::default() };
        for listed in [[closed.clone(), clear.clone()], [clear.clone(), closed.clone()]] {
            assert_eq!(found(root, &listed, false), "hidden by s.age");
        }
        // One for workers alone has none, and hides none.
        let for_workers = SecretSource { purpose: Some(flotilla_model::spec::SourcePurpose::Workers), ..closed };
        assert!(found(root, &[for_workers, clear], false).ends_with(" from a.env"));
    }
}
