//! Results as JUnit XML, which CI systems show: a suite for each worker, a case for each check.

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};

use flotilla_deploy::verify::{Report, Status};

use super::ui::clean;

/// The reports as one document.
pub(super) fn document(reports: &[Report], seconds: f64) -> String {
    let mut xml = Writer::new_with_indent(Vec::new(), b' ', 2);
    let counts = |reports: &[Report], status: Status| {
        reports.iter().flat_map(|report| &report.checks).filter(|check| check.status == status).count().to_string()
    };
    let all = |reports: &[Report]| reports.iter().map(|report| report.checks.len()).sum::<usize>().to_string();
    let totals = |name: &str, reports: &[Report], seconds: f64| {
        vec![
            ("name", name.to_owned()),
            ("tests", all(reports)),
            ("failures", counts(reports, Status::Failed)),
            ("errors", "0".to_owned()),
            ("skipped", counts(reports, Status::Skipped)),
            ("time", format!("{seconds:.3}")),
        ]
    };
    put(&mut xml, Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)));
    open(&mut xml, "testsuites", totals("flotilla verify", reports, seconds));
    for report in reports {
        let own = std::slice::from_ref(report);
        let took = report.checks.iter().map(|check| check.seconds).sum();
        open(&mut xml, "testsuite", totals(&clean(&report.worker), own, took));
        for check in &report.checks {
            let name = format!("{} {}", check.name, clean(&check.of));
            let class = format!("{}.{}", report.environment, clean(&report.customer));
            let attributes = vec![("classname", class), ("name", name), ("time", format!("{:.3}", check.seconds))];
            open(&mut xml, "testcase", attributes);
            let message = clean(&check.message);
            match check.status {
                Status::Failed => {
                    let address = clean(report.address.as_deref().unwrap_or_default());
                    open(&mut xml, "failure", vec![("message", message.clone())]);
                    put(&mut xml, Event::Text(BytesText::new(&format!("{message}\n{address}"))));
                    close(&mut xml, "failure");
                }
                Status::Skipped => {
                    open(&mut xml, "skipped", vec![("message", message)]);
                    close(&mut xml, "skipped");
                }
                Status::Warning => {
                    open(&mut xml, "system-out", Vec::new());
                    put(&mut xml, Event::Text(BytesText::new(&message)));
                    close(&mut xml, "system-out");
                }
                Status::Passed => {}
            }
            close(&mut xml, "testcase");
        }
        close(&mut xml, "testsuite");
    }
    close(&mut xml, "testsuites");
    String::from_utf8(xml.into_inner()).expect("BUG: text was written") + "\n"
}

fn open(xml: &mut Writer<Vec<u8>>, name: &str, attributes: Vec<(&str, String)>) {
    let attributes = attributes.iter().map(|(name, value)| (*name, value.as_str()));
    put(xml, Event::Start(BytesStart::new(name).with_attributes(attributes)));
}

fn close(xml: &mut Writer<Vec<u8>>, name: &str) {
    put(xml, Event::End(BytesEnd::new(name)));
}

fn put(xml: &mut Writer<Vec<u8>>, event: Event<'_>) {
    xml.write_event(event).expect("BUG: memory can be written");
}
