//! The accounts of a fleet for commands that need no specs beside: those of fleet.yaml, those of customers' own, and those that customers had
//! whose specs are gone.

use std::path::Path;

use flotilla_build::build::{self, Scan};
use flotilla_deploy::state::State;
use flotilla_model::failure::Failure;
use flotilla_model::spec::OwnAccount;
use flotilla_spec::project::{self, Fleet};
use flotilla_spec::secrets::Secrets;
use flotilla_spec::tree::Tree;

use crate::cloud::{Cloud, CloudOptions};
use crate::context::Context;

/// Reads fleet.yaml, and the accounts that specs define.
pub fn read_fleet(root: &Path) -> Result<Fleet, Failure> {
    let mut fleet = project::read_fleet(&Tree::new(root)).map_err(Failure::invalid)?;
    fleet.accounts.set_own(build::own_accounts(root));
    Ok(fleet)
}

/// Returns the cloud of a command that also handles workers of customers whose specs are gone: the accounts that these had are added to the
/// fleet. Starts nothing and sends nothing.
pub fn cloud_of_all(
    context: &Context<'_>,
    fleet: &mut Fleet,
    options: &CloudOptions,
    secrets: &Secrets,
) -> Result<Cloud, Failure> {
    let cloud = Cloud::new(context, fleet, options, secrets)?;
    let mut former = State::read(&cloud.state)?.own_accounts()?;
    former.retain(|name, _| !fleet.accounts.contains_key(name));
    if former.is_empty() {
        return Ok(cloud);
    }
    fleet.accounts.add_former(former.into_iter().filter_map(|(name, (_, own))| Some((name, own.account()?))).collect());
    Cloud::new(context, fleet, options, secrets)
}

/// Notes in the state the accounts of a fleet that specs define.
pub(crate) fn note_all(fleet: &Fleet, cloud: &Cloud) -> Result<(), Failure> {
    if fleet.accounts.own().is_empty() {
        return Ok(());
    }
    let own = fleet.accounts.own().iter();
    let defined = own.map(|(name, own)| (name.clone(), (cloud.home(name, None).account_id, OwnAccount::of(own))));
    State::open(&cloud.state)?.note_accounts(&defined.collect())
}

/// Notes in the state which accounts the specs of a scan define. Where none does and none did, nothing is opened.
pub(crate) fn note(scan: &Scan, fleet: &Fleet, cloud: &Cloud) -> Result<(), Failure> {
    if fleet.accounts.own().is_empty() {
        return Ok(());
    }
    let all = scan.records.iter().flat_map(|record| &record.accounts);
    let own = all.filter_map(|(name, own)| Some((name.clone(), OwnAccount::of(&own.account()?))));
    let own = own.map(|(name, own)| (name.clone(), (cloud.home(&name, None).account_id, own)));
    State::open(&cloud.state)?.note_accounts(&own.collect())
}
