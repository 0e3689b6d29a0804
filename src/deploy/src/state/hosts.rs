//! The hosts that were written to KV, each with the worker that it points to.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rusqlite::params;

use super::{State, WorkerId, namespace};
use flotilla_model::customer::Hosts;
use flotilla_model::failure::Failure;
use flotilla_model::platform::Home;

/// The table. The worker is the last one that was acknowledged, empty if there was none; `sure` is 0 while a request
/// about the host is in flight, and as long as its outcome is unknown; `maybe` has the workers then that it can point
/// to as well, with a space around each.
pub(super) const TABLE: &str = "
CREATE TABLE IF NOT EXISTS hosts (
    account_id TEXT NOT NULL, title TEXT NOT NULL, host TEXT NOT NULL,
    account TEXT NOT NULL, namespace TEXT NOT NULL, worker TEXT NOT NULL, sure INTEGER NOT NULL, maybe TEXT NOT NULL,
    PRIMARY KEY (account_id, title, host)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS hosts_of_workers ON hosts (account_id, namespace, worker);
CREATE INDEX IF NOT EXISTS hosts_in_doubt ON hosts (account_id) WHERE sure = 0;
";

/// A KV namespace with hosts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table {
    /// The account's id.
    pub account_id: String,
    /// Its title.
    pub title: String,
}

/// The worker that a host points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostTarget {
    /// The account's name in fleet.yaml, when it was written.
    pub account: String,
    /// The home of the worker.
    pub home: Home,
    /// The worker, if one was acknowledged.
    pub worker: Option<String>,
    /// Whether that is certain: no request about the host was interrupted.
    pub sure: bool,
}

impl State {
    /// Returns all hosts that were written, or may have been.
    pub fn hosts(&self) -> Result<BTreeMap<(Table, String), HostTarget>, Failure> {
        let sql = "SELECT account_id, title, host, account, namespace, worker, sure FROM hosts";
        self.rows(sql, [], |row| {
            let account_id: String = row.get(0)?;
            let table = Table { account_id: account_id.clone(), title: row.get(1)? };
            let namespace = Some(row.get(4)?).filter(|name: &String| !name.is_empty());
            let worker = Some(row.get(5)?).filter(|name: &String| !name.is_empty());
            let home = Home { account_id, namespace };
            Ok(((table, row.get(2)?), HostTarget { account: row.get(3)?, home, worker, sure: row.get(6)? }))
        })
    }

    /// Returns the hosts that surely point to each worker.
    pub fn hosts_by_worker(&self) -> Result<HashMap<WorkerId, Hosts>, Failure> {
        let mut by_worker: HashMap<WorkerId, Hosts> = HashMap::new();
        for ((Table { title, .. }, host), target) in self.hosts()? {
            if let (Some(worker), true) = (target.worker, target.sure) {
                let none = || Hosts { table: title, names: BTreeSet::new() };
                by_worker.entry((target.home, worker)).or_insert_with(none).names.insert(host);
            }
        }
        Ok(by_worker)
    }

    /// Returns the hosts that surely point to a worker.
    pub fn hosts_of(&self, (home, worker): &WorkerId) -> Result<Vec<String>, Failure> {
        let sql =
            "SELECT host FROM hosts WHERE account_id = ? AND namespace = ? AND worker = ? AND sure = 1 ORDER BY host";
        self.rows(sql, params![home.account_id, namespace(home), worker], |row| row.get(0))
    }

    /// Returns a host that points, or may point, to a worker, if there is one.
    pub fn host_of(&self, home: &Home, worker: &str) -> Result<Option<String>, Failure> {
        let sql = "SELECT host FROM hosts WHERE account_id = ? AND namespace = ? AND worker = ? LIMIT 1";
        let found = self.row(sql, params![home.account_id, namespace(home), worker], |row| row.get(0))?;
        if found.is_some() {
            return Ok(found);
        }
        let sql = "SELECT host FROM hosts WHERE account_id = ? AND sure = 0 AND instr(maybe, ?) > 0 LIMIT 1";
        self.row(sql, [&home.account_id, &format!(" {worker} ")], |row| row.get(0))
    }

    /// Notes that a request about a host is in flight: whatever its outcome, the host points to its old worker, to
    /// the one that the request names, or nowhere.
    pub fn mark_host_uncertain(
        &mut self,
        table: &Table,
        host: &str,
        account: &str,
        (home, to): (&Home, Option<&str>),
    ) -> Result<(), Failure> {
        let maybe = to.map(|to| format!(" {to} ")).unwrap_or_default();
        let sql = "INSERT INTO hosts VALUES (?, ?, ?, ?, ?, '', 0, ?) ON CONFLICT (account_id, title, host)
                   DO UPDATE SET sure = 0, maybe = replace(maybe, excluded.maybe, '') || excluded.maybe";
        self.run(sql, params![table.account_id, table.title, host, account, namespace(home), maybe])
    }

    /// Notes that a host points to a worker.
    pub fn point_host(
        &mut self,
        table: &Table,
        host: &str,
        account: &str,
        (home, worker): (&Home, &str),
    ) -> Result<(), Failure> {
        let sql = "INSERT OR REPLACE INTO hosts VALUES (?, ?, ?, ?, ?, ?, 1, '')";
        self.run(sql, params![table.account_id, table.title, host, account, namespace(home), worker])
    }

    /// Notes that a host is gone.
    pub fn release_host(&mut self, table: &Table, host: &str) -> Result<(), Failure> {
        let sql = "DELETE FROM hosts WHERE account_id = ? AND title = ? AND host = ?";
        self.run(sql, [&table.account_id, &table.title, host])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_leads_to_one_worker_and_is_gone_when_it_is_told() {
        let mut state = State::in_memory();
        let table = Table { account_id: "a".to_owned(), title: "hosts".to_owned() };
        let home = Home { account_id: "a".to_owned(), namespace: Some("shops".to_owned()) };
        let point_host =
            |state: &mut State, host, worker| state.point_host(&table, host, "default", (&home, worker)).unwrap();
        point_host(&mut state, "a.example", "one");
        point_host(&mut state, "b.example", "one");
        point_host(&mut state, "a.example", "two");
        assert_eq!(state.host_of(&home, "one").unwrap(), Some("b.example".to_owned()));
        assert_eq!(state.host_of(&home, "two").unwrap(), Some("a.example".to_owned()));
        for host in ["b.example", "c.example"] {
            state.mark_host_uncertain(&table, host, "default", (&home, Some("three"))).unwrap();
        }
        state.mark_host_uncertain(&table, "c.example", "default", (&home, Some("four"))).unwrap();
        state.mark_host_uncertain(&table, "c.example", "default", (&home, None)).unwrap();
        for (worker, may) in [("three", true), ("four", true), ("thre", false), ("five", false)] {
            assert_eq!(state.host_of(&home, worker).unwrap().is_some(), may, "{worker}");
        }
        let known = |state: &State, host: &str| {
            state
                .hosts()
                .unwrap()
                .remove(&(table.clone(), host.to_owned()))
                .map(|point_host| (point_host.worker, point_host.sure))
        };
        assert_eq!(known(&state, "a.example"), Some((Some("two".to_owned()), true)));
        assert_eq!(known(&state, "b.example"), Some((Some("one".to_owned()), false)), "it may lead there still");
        assert_eq!(state.host_of(&home, "one").unwrap(), Some("b.example".to_owned()));
        assert_eq!(known(&state, "c.example"), Some((None, false)));
        state.release_host(&table, "b.example").unwrap();
        assert_eq!(known(&state, "b.example"), None);
        assert_eq!(state.host_of(&home, "one").unwrap(), None);
    }
}
