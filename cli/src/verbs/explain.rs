//! `moat explain`

use moat_core::diagnose::{Code, Fault};
use moat_core::policy::{Refusal, decide};
use moat_core::spec::Resolved;
use serde_json::{Value, json};

use crate::args::Explain;
use crate::host::Host;
use crate::output::Output;
use crate::{Failure, decision, select};

/// Tells what would be decided for each workload. The status is that with which `run` would end
/// for the first that is refused.
pub(crate) fn explain(output: Output, args: &Explain) -> Result<u8, Failure> {
    let policy = select::policy(&args.selection)?;
    let workloads = select::all(&args.selection, &args.command)?;
    let facts = Host::open()?.facts(&policy)?;
    let told: Vec<Told> = workloads
        .into_iter()
        .map(|workload| {
            let outcome =
                decide(&policy, &workload, &facts).map(|approved| approved.decision().clone());
            Told { workload, outcome }
        })
        .collect();
    let refused = told.iter().find_map(|told| told.outcome.as_ref().err()).map(Refusal::code);
    let json: Vec<Value> = told.iter().map(Told::json).collect();
    output.result(&json, |_| told.iter().map(Told::text).collect())?;
    Ok(refused.map_or(0, Code::exit_status))
}

struct Told {
    workload: Resolved,
    outcome: Result<moat_core::policy::Decision, Refusal>,
}

impl Told {
    fn json(&self) -> Value {
        match &self.outcome {
            Ok(decision) => json!({ "workload": self.workload, "decision": decision }),
            Err(refusal) => json!({
                "workload": self.workload,
                "refusal": refusal,
                "message": refusal.to_string(),
            }),
        }
    }

    fn text(&self) -> String {
        let body = match &self.outcome {
            Ok(decision) => decision::whole(&self.workload, decision),
            Err(refusal) => {
                let hint = Fault::from(refusal.clone()).hint;
                let hint = hint.map_or_else(String::new, |hint| format!("  hint:      {hint}\n"));
                format!("  refused:   {refusal}\n{hint}")
            }
        };
        format!("{}\n{body}", self.workload.name)
    }
}
