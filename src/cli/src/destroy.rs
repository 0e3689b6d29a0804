//! `flotilla destroy`.

use serde_json::{Value, json};

use flotilla_engine::deploy_fleet::Deployed;
use flotilla_engine::destroy::{DestroyRequest, Destroyed, destroy};
use flotilla_engine::destroy_target::{DestroyTarget, OtherCloud};
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::text;

use super::apply::{ApplyArguments, given};
use super::cloud::CloudArguments;
use super::deploy::report_deployed;
use super::report::{self, count};
use super::ui::{Style, Ui, clean};
use super::{Format, Session};

/// The number of shared workers that are named.
const NAMES: usize = 10;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Customers to delete
    #[arg(value_name = "CUSTOMER", required = true)]
    customers: Vec<String>,
    #[command(flatten)]
    cloud: CloudArguments,
    /// Skip the confirmation prompt
    #[arg(long, short)]
    yes: bool,
    /// Show what would be deleted, and delete nothing
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let request = DestroyRequest {
        customers: arguments.customers.iter().cloned().collect(),
        cloud: arguments.cloud.options(),
        approval: given(arguments.yes, arguments.dry_run),
    };
    let Destroyed { target, deployed } = destroy(&session.context(), &request)?;
    let mut object = json!({
        "specs": target.specs,
        "workers": target.workers.iter().map(|((_, worker), _)| worker.as_str()).collect::<Vec<_>>(),
        "env_files": target.env_files,
        "callers": target.calling_customers(),
        "elsewhere": target.elsewhere.iter().map(|other| elsewhere(*other).0).collect::<Vec<_>>(),
        "shared_workers": target.shared,
        "dry_run": arguments.dry_run,
    });
    if let (Some(Deployed::Applied(applied)), Format::Json) = (&deployed, session.format) {
        let outcome = serde_json::to_value(&applied.outcome).map_err(anyhow::Error::from)?;
        if let (Value::Object(object), Value::Object(outcome)) = (&mut object, outcome) {
            object.extend(outcome);
        }
        session.json(&object)?;
        return Ok(applied.exit());
    }
    if let Some(deployed) = deployed {
        let exit = report_deployed(session, "flotilla destroy", deployed, &ApplyArguments::default(), None)?;
        if exit == Exit::SomeFailed && session.format == Format::Text {
            report::print("run the same command again to delete what is left");
        }
        return Ok(exit);
    }
    match session.format {
        Format::Json => session.json(&object)?,
        Format::Text if arguments.dry_run => report::print(&format!(
            "would delete {} and {}",
            count(target.specs.len(), "spec"),
            count(target.workers.len(), "worker")
        )),
        Format::Text if target.specs.is_empty() => report::print("nothing to delete"),
        Format::Text => report::print("deleted; according to the state, no worker was deployed"),
    }
    Ok(Exit::Done)
}

/// Returns the name of another cloud that customers are deployed to, for programs, and the next step, in words.
fn elsewhere(other: OtherCloud) -> (&'static str, &'static str) {
    match other {
        OtherCloud::Cloudflare => {
            ("cloudflare", "also deployed to Cloudflare: `flotilla destroy` without --local deletes it there")
        }
        OtherCloud::Local => {
            ("local", "also deployed to the local emulator: `flotilla destroy --local` deletes it there")
        }
        OtherCloud::OtherApi => {
            ("other_api", "also deployed to another API: run the command with its CLOUDFLARE_API_BASE_URL")
        }
    }
}

/// Returns a line for each thing that is going to be deleted, and for what stays.
pub(super) fn lines(ui: &Ui, target: &DestroyTarget) -> Vec<String> {
    let mut lines: Vec<String> = target.specs.iter().map(|spec| clean(&format!("- {spec}"))).collect();
    for ((_, worker), live) in &target.workers {
        let hosts = live.live.domains.keys().chain(live.live.routes.keys()).cloned().collect::<Vec<_>>().join(", ");
        let hosts = if hosts.is_empty() { String::new() } else { format!("  {hosts}") };
        lines.push(clean(&format!("- {worker}  ({} · {}){hosts}", live.customer, live.environment)));
    }
    let sign = ui.paint(Style::Warning, "!");
    let mut warn = |text: String| lines.push(format!("{sign} {}", clean(&text)));
    for caller in &target.callers {
        warn(format!("{} of {} calls {}, which will no longer exist", caller.worker, caller.customer, caller.callee));
    }
    for other in &target.elsewhere {
        warn(elsewhere(*other).1.to_owned());
    }
    if !target.shared.is_empty() {
        let workers = text::names(&target.shared, NAMES);
        warn(format!(
            "shared workers stay: {workers}; to delete them, remove `sharedWorkers` from fleet.yaml and run `flotilla prune`"
        ));
    }
    lines.push("databases, buckets and secrets are kept".to_owned());
    if !target.env_files.is_empty() {
        lines.push(clean(&format!("env files are kept: {}", target.env_files.join(", "))));
    }
    lines
}
