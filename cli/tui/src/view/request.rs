//! What there is to read of one request: below its list, and in full on its page.

use jiff::tz::TimeZone;
use thinlane_wire::api::RequestView;

use crate::columns::request_word;
use crate::text;

/// Whose it is and for what, and then what was said of it.
pub fn page(view: &RequestView, zone: &TimeZone) -> Vec<String> {
    let org = view.org.as_ref().map(|org| format!(" ({org})")).unwrap_or_default();
    let time = text::about(view.seconds.saturating_mul(1000));
    let what = format!(
        "{}{org} wants {} on {} at {} for {time}, asked at {}",
        view.user,
        view.task,
        view.asset,
        view.site,
        text::moment(view.created_at, zone)
    );
    std::iter::once(what).chain(said(view, zone)).collect()
}

/// What the policy and people said of it.
pub fn said(view: &RequestView, zone: &TimeZone) -> Vec<String> {
    let decision = &view.decision;
    let ticket = view.ticket.as_ref().map(|ticket| format!(" (ticket {ticket})")).unwrap_or_default();
    let mut lines = vec![
        format!("{} {}: {} by {}", view.id, request_word(view.state), decision.verdict, decision.rules.join(", ")),
        format!("why: {}{ticket}", view.reason),
    ];
    for demand in &decision.obligations.approvers {
        lines.push(format!(
            "{} asks for {} of {}, {} missing",
            demand.rule,
            text::count(u64::from(demand.approvals), "approval"),
            demand.roles.join("/"),
            demand.missing
        ));
    }
    for approval in &view.approvals {
        let note = approval.note.as_ref().map(|note| format!(": {note}")).unwrap_or_default();
        lines.push(format!("approved by {} at {}{note}", approval.by, text::clock(approval.at, zone)));
    }
    if let Some(denial) = &view.denial {
        lines.push(format!("denied by {}: {}", denial.by, denial.reason));
    }
    lines.extend(decision.reasons.iter().cloned());
    lines
}
