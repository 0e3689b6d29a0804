//! Builds: the first one, and what people do from then on; beside only writing and only looking at the same files.

use crate::baseline;
use crate::figures::{Aim, Contender, Report, in_turns, megabytes, seconds, thousands, verdict};
use crate::project::{Project, settle};
use crate::watch;

/// The most that a run may have in memory.
const MEMORY: u64 = 250_000_000;

/// Measures builds of a fleet of this size.
pub fn run(report: &mut Report, customers: usize, rounds: usize) {
    let scenario = "builds";
    let project = Project::new(scenario, customers);
    report.text(&format!("### Builds of {} customers", thousands(customers as u64)));

    let cold = in_turns(
        rounds.min(3),
        vec![
            Contender::new("cold build", |_| project.build_cold()).after(|_| project.set_aside()),
            Contender::new("only writing the same files", |_| baseline::only_write(&project)).after(|_| settle()),
        ],
    );
    // Each in the place of a customer of its own, all over the fleet.
    let (edited, gone) = (customers / 3, customers / 2);
    let all = customers as u64;
    let project = &project;
    let warm = in_turns(
        rounds,
        vec![
            Contender::new("build, nothing changed", |_| project.build_nothing()).after(|round| {
                if round > 0 {
                    project.put_back(gone);
                }
                project.bring_up_to_date();
                settle();
            }),
            Contender::new("only asking for the same files' times", |_| baseline::only_stat(project)),
            Contender::new("build, one spec changed", |_| project.build_one())
                .after(|round| project.change_spec(edited, round)),
            Contender::new("build, all specs touched, none changed", |_| project.build_nothing())
                .after(|_| project.touch_specs()),
            Contender::new("build, a default of all customers changed", |_| project.build(all.., 0..=0))
                .after(|round| project.change_default(round)),
            Contender::new("build, a template changed", |_| project.build(all.., 0..=0))
                .after(|round| project.change_template(round)),
            Contender::new("build, a customer gone", |_| project.build(0..=0, 1..)).after(|_| project.take_away(gone)),
        ],
    );
    let [first, written] = &cold[..] else { unreachable!("two contenders") };
    let [nothing, asked, one, ..] = &warm[..] else { unreachable!("seven contenders") };
    let figures: Vec<_> = cold.iter().chain(&warm).collect();
    report.figures(scenario, customers, &figures);
    report.ratios(
        scenario,
        customers,
        &[(first, written, Some(Aim::AtMost(1.5))), (nothing, asked, Some(Aim::AtMost(1.3)))],
    );
    let more = one.more_than(nothing);
    let mut text = match more {
        0.0.. => format!("One changed spec costs {} more than none", seconds(more)),
        _ => "One changed spec costs no more than none".to_owned(),
    };
    text += &format!(" (aim: 20 ms{}).", verdict(customers, more <= 0.02));
    let memory = figures.iter().filter_map(|figure| figure.memory()).max().expect("a build's memory");
    text += &format!(" The most memory of a build: {} (aim: {}", megabytes(memory), megabytes(MEMORY));
    text += &format!("{}).", verdict(customers, memory <= MEMORY));
    report.text(&text);

    project.put_back(gone);
    project.bring_up_to_date();
    watch::run(report, project, customers, rounds);
    project.bring_up_to_date();
    let mut rows = vec![["", "files", "bytes", "on the disk"].map(str::to_owned).to_vec()];
    for folder in ["customers", "out", ".flotilla"] {
        let size = project.size(folder);
        rows.push(vec![format!("`{folder}/`"), thousands(size.files), megabytes(size.bytes), megabytes(size.disk)]);
        report.line(serde_json::json!({
            "scenario": scenario, "folder": folder, "customers": customers,
            "files": size.files, "bytes": size.bytes, "disk_bytes": size.disk,
        }));
    }
    report.table(&rows);
}
