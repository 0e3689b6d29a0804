//! Customers' own accounts, as their specs defined them: a customer whose spec is gone still has workers in its account. Never a token,
//! only the name of the secret that has it.

use std::collections::BTreeMap;

use rusqlite::params;

use super::{State, json_of};
use flotilla_model::failure::Failure;
use flotilla_model::spec::OwnAccount;

/// The table.
pub(super) const TABLE: &str = "
CREATE TABLE IF NOT EXISTS accounts (name TEXT PRIMARY KEY, account_id TEXT NOT NULL, defined TEXT NOT NULL) WITHOUT ROWID;
";

impl State {
    /// Returns customers' own accounts by name, each with its id.
    pub fn own_accounts(&self) -> Result<BTreeMap<String, (String, OwnAccount)>, Failure> {
        self.rows("SELECT name, account_id, defined FROM accounts", [], |row| {
            Ok((row.get(0)?, (row.get(1)?, json_of(row, 2)?)))
        })
    }

    /// Notes the accounts that specs define, each with its id, and forgets others that have no workers any more. Writes only what differs.
    pub fn note_accounts(&mut self, defined: &BTreeMap<String, (String, OwnAccount)>) -> Result<(), Failure> {
        let noted = self.own_accounts()?;
        let new: Vec<_> = defined.iter().filter(|(name, own)| noted.get(*name) != Some(own)).collect();
        let gone: Vec<_> = noted.keys().filter(|name| !defined.contains_key(*name)).collect();
        if new.is_empty() && gone.is_empty() {
            return Ok(());
        }
        self.all(|state| {
            for (name, (account_id, own)) in new {
                let own = serde_json::to_string(own).expect("BUG: an account is JSON");
                state.run("INSERT OR REPLACE INTO accounts VALUES (?, ?, ?)", params![name, account_id, own])?;
            }
            for name in gone {
                let sql = "DELETE FROM accounts WHERE name = ?1
                    AND NOT EXISTS (SELECT 1 FROM deployed d WHERE d.account_id = accounts.account_id)
                    AND NOT EXISTS (SELECT 1 FROM begun b WHERE b.account_id = accounts.account_id)";
                state.run(sql, [name])?;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::sample;
    use crate::state::{Entry, RunId};
    use flotilla_model::spec::SecretReference;

    #[test]
    fn an_account_is_kept_as_long_as_it_has_workers() {
        let own = |secret: &str| OwnAccount {
            id: Some("1".repeat(32)),
            token: Some(SecretReference { secret: secret.to_owned() }),
            ..OwnAccount::default()
        };
        let defined =
            |name: &str, id: &str, secret: &str| BTreeMap::from([(name.to_owned(), (id.to_owned(), own(secret)))]);
        let mut state = State::in_memory();
        let (id, mut deployed) = sample();
        let acme = defined("acme", &id.0.account_id, "ONE");
        state.note_accounts(&acme).unwrap();
        assert_eq!(state.own_accounts().unwrap(), acme);
        // Another token of the same account.
        let acme = defined("acme", &id.0.account_id, "TWO");
        state.note_accounts(&acme).unwrap();
        assert_eq!(state.own_accounts().unwrap(), acme);
        let entry = Entry { run: RunId(1), at: 7, action: "create", reasons: &[], left: &[] };
        state.record(&id, &mut deployed, &entry).unwrap();
        state.note_accounts(&BTreeMap::new()).unwrap();
        assert_eq!(state.own_accounts().unwrap(), acme, "its worker is still there");
        state.forget(&id, &deployed, &entry).unwrap();
        state.note_accounts(&BTreeMap::new()).unwrap();
        assert_eq!(state.own_accounts().unwrap(), BTreeMap::new());
    }
}
