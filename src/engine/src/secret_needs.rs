//! The secrets that a worker's upload needs: which of them are sent, and why others aren't known. Knows one worker at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use secrecy::{ExposeSecret as _, SecretString};

use flotilla_deploy::rotation::{Missing, Sending, sending};
use flotilla_model::customer::Worker;
use flotilla_model::fingerprint::Fingerprints;
use flotilla_model::spec::Environment;
use flotilla_spec::secrets::{Finding, Secrets};

/// The secrets that a worker needs: their names by binding, and their owner.
#[derive(Clone, Copy)]
pub struct Needs<'a> {
    /// The customer.
    pub customer: &'a str,
    /// The environment.
    pub environment: Environment,
    /// The names in the sources, by binding.
    pub names: &'a BTreeMap<String, String>,
}

impl<'a> Needs<'a> {
    /// Returns the needs of a worker.
    pub fn of(worker: &'a Worker) -> Needs<'a> {
        Needs { customer: &worker.customer, environment: worker.environment, names: &worker.secrets }
    }
}

/// The secrets that a worker's upload sends, with their values.
pub struct Sent {
    /// The bindings that are sent, and whether the others are kept.
    pub sending: Sending,
    values: HashMap<String, SecretString>,
}

impl Sent {
    /// Returns the value of a binding that is sent.
    pub fn value(&self, binding: &str) -> Option<&str> {
        let value = self.values.get(binding).filter(|_| self.sending.send.contains(binding))?;
        Some(value.expose_secret())
    }
}

/// The reason why the value of a secret isn't known.
pub struct Hidden {
    source: String,
    /// The source and its own reason.
    pub why: String,
    /// Whether its source has errors, on this machine and on any other.
    is_broken: bool,
}

/// The secrets that a worker's upload needs and that have no value here.
pub struct Lacking {
    /// Their names.
    pub names: BTreeSet<String>,
    /// A file with errors that may have one of them, if there is one.
    pub broken_source: Option<String>,
}

/// Returns the secrets that a worker's upload needs and that have no value here. `live` has the fingerprints of its live secrets, if they
/// are certain.
pub fn lacking(
    secrets: &Secrets,
    worker: &Worker,
    live: Option<&BTreeMap<String, String>>,
    fingerprints: &Fingerprints,
) -> Option<Lacking> {
    let (missing, hidden) = sent(secrets, &Needs::of(worker), live, fingerprints).err()?;
    let mut sources = missing.names.iter().filter_map(|name| hidden.get(name)).filter(|hidden| hidden.is_broken);
    let broken_source = sources.next().map(|hidden| hidden.source.clone());
    Some(Lacking { names: missing.names, broken_source })
}

/// Returns the secrets to send; or those that are missing, with the reason why their values can't be known, by name.
pub fn sent(
    secrets: &Secrets,
    needs: &Needs<'_>,
    live: Option<&BTreeMap<String, String>>,
    fingerprints: &Fingerprints,
) -> Result<Sent, (Missing, HashMap<String, Hidden>)> {
    let (mut values, mut known, mut hidden) = (HashMap::new(), BTreeMap::new(), HashMap::new());
    for (binding, name) in needs.names {
        match secrets.find(needs.customer, needs.environment, name) {
            Finding::Value(found) => {
                known.insert(binding.clone(), fingerprints.of(found.value.expose_secret()));
                values.insert(binding.clone(), found.value);
            }
            Finding::Nowhere => {}
            Finding::Hidden { source, why, is_broken } => {
                hidden.insert(name.clone(), Hidden { why: format!("{source}: {why}"), source, is_broken });
            }
        }
    }
    match sending(needs.names, live, &known) {
        Ok(sending) => Ok(Sent { sending, values }),
        Err(missing) => Err((missing, hidden)),
    }
}
