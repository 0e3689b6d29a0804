//! The things that are deleted with customers, and those that stay. Values alone; the operator has the words.

use std::collections::BTreeSet;

use flotilla_deploy::state::{Deployed, WorkerId};

/// A cloud beside the one that customers are deleted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OtherCloud {
    /// Cloudflare.
    Cloudflare,
    /// The local Cloudflare emulator.
    Local,
    /// Another API: CLOUDFLARE_API_BASE_URL named it.
    OtherApi,
}

/// A worker of another customer that calls one that is deleted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Caller {
    /// Its customer.
    pub customer: String,
    /// Its name.
    pub worker: String,
    /// The worker that it calls.
    pub callee: String,
}

/// The files and workers that are deleted with customers, and what stays.
#[derive(Default)]
pub struct DestroyTarget {
    /// The files of the specs, from the project's root.
    pub specs: Vec<String>,
    /// The workers that are deployed, as far as the state knows.
    pub workers: Vec<(WorkerId, Deployed)>,
    /// The customers' env files, which stay.
    pub env_files: Vec<String>,
    /// The other clouds that the customers are deployed to, as far as this machine knows.
    pub elsewhere: BTreeSet<OtherCloud>,
    /// The workers of other customers that call those that are deleted.
    pub callers: BTreeSet<Caller>,
    /// The deployed shared workers, if no customer is left.
    pub shared: Vec<String>,
}

impl DestroyTarget {
    /// Returns the customers whose workers call those that are deleted.
    pub fn calling_customers(&self) -> BTreeSet<&str> {
        self.callers.iter().map(|caller| caller.customer.as_str()).collect()
    }
}
