//! The table that is printed.

/// One measured thing.
struct Row {
    what: String,
    unit: &'static str,
    runs: usize,
    median: f64,
    p99: f64,
    budget: Option<f64>,
}

/// All rows so far.
#[derive(Default)]
pub struct Table(Vec<Row>);

fn percentile(sorted: &[f64], share: f64) -> f64 {
    let at = ((sorted.len() as f64) * share).ceil() as usize;
    sorted.get(at.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}

impl Table {
    /// Adds what was seen; the budget is compared with the p99 (with few runs: the largest).
    pub fn row(&mut self, what: &str, unit: &'static str, seen: &[f64], budget: Option<f64>) {
        let mut sorted = seen.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (median, p99) = (percentile(&sorted, 0.5), percentile(&sorted, 0.99));
        eprintln!("{what}: median {median:.2}, p99 {p99:.2} {unit}");
        self.0.push(Row { what: what.to_owned(), unit, runs: seen.len(), median, p99, budget });
    }

    pub fn print(&self) {
        println!("| what | runs | median | p99 | unit | budget | |");
        println!("|---|---|---|---|---|---|---|");
        for row in &self.0 {
            let budget = row.budget.map_or_else(|| "-".to_owned(), |budget| format!("<= {budget}"));
            let verdict = match row.budget {
                Some(budget) if row.p99 > budget => "MISSED",
                Some(_) => "met",
                None => "",
            };
            println!(
                "| {} | {} | {:.2} | {:.2} | {} | {budget} | {verdict} |",
                row.what, row.runs, row.median, row.p99, row.unit
            );
        }
    }

    /// Whether no budget is missed.
    pub fn all_within(&self) -> bool {
        self.0.iter().all(|row| row.budget.is_none_or(|budget| row.p99 <= budget))
    }
}
