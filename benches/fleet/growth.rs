//! Growth: ten times the customers, from 1,000 on; what each step costs beyond ten times as much.

use serde_json::{Value, json};

use crate::figures::{Aim, Contender, Figure, Report, in_turns, megabytes, seconds, thousands, told};
use crate::project::{Project, Size};

/// Where it begins.
const FIRST: usize = 1_000;
/// From here on, a cold build is measured once: it takes minutes, and gigabytes of disk.
const ONCE: usize = 1_000_000;

/// What ten times the customers may cost: ten times as much, and 15 % for the machine.
const LINEAR: f64 = 11.5;

/// What one size of the fleet costs.
struct Stage {
    customers: usize,
    cold: Figure,
    nothing: Figure,
    one: Figure,
    kept: Size,
    out: Size,
}

/// Measures fleets of 1,000 customers, 10,000 and so on up to this size.
pub fn run(report: &mut Report, most: usize, rounds: usize) {
    let scenario = "growth";
    let mut project = Project::new(scenario, 0);
    let mut stages = Vec::new();
    let mut customers = FIRST;
    while customers <= most {
        project.grow(customers);
        stages.push(stage(&project, rounds));
        customers *= 10;
    }
    assert!(!stages.is_empty(), "growth begins at {FIRST} customers");
    report.text("### Growth");
    let head = ["customers", "cold build", "nothing changed", "one spec changed", "memory", "`.flotilla/`", "`out/`"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for stage in &stages {
        let figures = [&stage.cold, &stage.nothing, &stage.one];
        let memory = figures.iter().filter_map(|figure| figure.memory()).max().expect("a build's memory");
        let mut row = vec![thousands(stage.customers as u64)];
        row.extend(figures.iter().map(|figure| seconds(figure.median())));
        row.extend([megabytes(memory), megabytes(stage.kept.bytes), megabytes(stage.out.disk)]);
        rows.push(row);
        report.line(json!({
            "scenario": scenario, "customers": stage.customers, "memory_bytes": memory,
            "seconds": {"cold": stage.cold.median(), "nothing": stage.nothing.median(), "one": stage.one.median()},
            "processor_seconds": {
                "cold": stage.cold.processor(), "nothing": stage.nothing.processor(), "one": stage.one.processor(),
            },
            "kept_bytes": stage.kept.bytes, "out_disk_bytes": stage.out.disk, "out_files": stage.out.files,
        }));
    }
    report.table(&rows);
    let head = ["ten times the customers", "cold build", "nothing changed", "one spec changed"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for pair in stages.windows(2) {
        let [before, after] = pair else { unreachable!("pairs") };
        let figures = [(&before.cold, &after.cold), (&before.nothing, &after.nothing), (&before.one, &after.one)];
        let steps = figures.map(|(before, after)| Step {
            times: after.median() / before.median(),
            processor: after.processor().zip(before.processor()).map(|(after, before)| after / before),
        });
        let what = format!("{} → {}", thousands(before.customers as u64), thousands(after.customers as u64));
        let [cold, nothing, one] = steps.map(Step::json);
        report.line(json!({
            "scenario": scenario, "from": before.customers, "to": after.customers,
            "cold": cold, "nothing": nothing, "one": one,
        }));
        rows.push(std::iter::once(what).chain(steps.map(|step| step.told(after.customers))).collect());
    }
    if rows.len() > 1 {
        report.table(&rows);
    }
}

/// How many times as much ten times the customers cost.
#[derive(Clone, Copy)]
struct Step {
    times: f64,
    /// The same of the processor times.
    processor: Option<f64>,
}

impl Step {
    fn told(self, customers: usize) -> String {
        let aim = told(Some(Aim::AtMost(LINEAR)), customers, self.times);
        let processor = self.processor.map_or_else(String::new, |times| format!("; processor time × {times:.1}"));
        format!("× {:.1}, exponent {:.2} ({aim}){processor}", self.times, self.times.log10())
    }

    fn json(self) -> Value {
        json!({"times": self.times, "exponent": self.times.log10(), "processor_times": self.processor})
    }
}

fn stage(project: &Project, rounds: usize) -> Stage {
    let customers = project.customers;
    eprintln!("{customers} customers");
    let cold = Contender::new("cold build", |_| project.build_cold()).after(|_| project.set_aside());
    let cold = in_turns(if customers < ONCE { rounds.min(3) } else { 1 }, vec![cold]);
    let rest = in_turns(
        rounds,
        vec![
            Contender::new("build, nothing changed", |_| project.build_nothing()).after(|_| project.bring_up_to_date()),
            Contender::new("build, one spec changed", |_| project.build_one())
                .after(|round| project.change_spec(customers / 3, round)),
        ],
    );
    let [cold] = <[Figure; 1]>::try_from(cold).ok().expect("one contender");
    let [nothing, one] = <[Figure; 2]>::try_from(rest).ok().expect("two contenders");
    // The next stage writes its specs over these.
    project.put_back(customers / 3);
    Stage { customers, cold, nothing, one, kept: project.size(".flotilla"), out: project.size("out") }
}
