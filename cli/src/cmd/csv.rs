//! An inventory as CSV (RFC 4180), read strictly: every complaint names its line and column.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::str::FromStr;

use csv::StringRecord;
use thinlane_model::{AssetName, AssetType, Label, SiteName};
use thinlane_wire::api::{Criticality, NewAsset};

use crate::failure::{Failure, Result};
use crate::home::read_bounded;

/// The largest file, in bytes.
const LARGEST: u64 = 8 * 1024 * 1024;
/// Complaints that are shown at once.
const SHOWN: usize = 20;
const COLUMNS: [&str; 6] = ["asset", "site", "address", "type", "criticality", "labels"];
/// Those that every file must have.
const NEEDED: usize = 4;

/// A complaint, by the line that it is about; 0: the file as a whole.
type Complaint = (u64, String);

/// What was read of an inventory.
#[derive(Debug, Default)]
pub struct Inventory {
    name: String,
    /// Those whose name, site and address can be read, each once.
    pub assets: Vec<NewAsset>,
    /// Where each of them stands, by its name.
    lines: BTreeMap<String, u64>,
    complaints: Vec<Complaint>,
}

impl Inventory {
    /// Whether there is nothing to complain about.
    pub fn is_sound(&self) -> bool {
        self.complaints.is_empty()
    }

    /// All complaints at once, in the order of their lines: ours, and the controller's, which begin with an asset's
    /// name.
    pub fn refused(self, theirs: &str) -> Failure {
        let located = |complaint: &str| {
            let line = complaint.split_once(": ").and_then(|(asset, _)| self.lines.get(asset));
            (line.copied().unwrap_or(u64::MAX), complaint.to_owned())
        };
        let mut all = self.complaints;
        all.extend(theirs.lines().map(located));
        all.sort_by_key(|(line, _)| *line);
        let mut lines: Vec<String> = all
            .iter()
            .take(SHOWN)
            .map(|(line, complaint)| match line {
                0 => format!("{}: {complaint}", self.name),
                &u64::MAX => complaint.clone(),
                line => format!("{}:{line}: {complaint}", self.name),
            })
            .collect();
        if all.len() > SHOWN {
            lines.push(format!("and {} more", all.len() - SHOWN));
        }
        Failure::failed(format!("nothing was imported:\n  {}", lines.join("\n  "))).next(format!(
            "correct {}; the first line is {}",
            self.name,
            COLUMNS.join(",")
        ))
    }
}

/// Reads a file as far as it can be read; an error only where there is no text at all.
pub fn read(file: &Path) -> Result<Inventory> {
    let name = file.display();
    let text = read_bounded(file, LARGEST)
        .map_err(|failure| {
            failure.next(format!("give a CSV file, saved as UTF-8; its first line is {}", COLUMNS.join(",")))
        })?
        .ok_or_else(|| {
            Failure::failed(format!("{name} does not exist"))
                .next(format!("give the path of a CSV file whose first line is {}", COLUMNS.join(",")))
        })?;
    Ok(Inventory { name: name.to_string(), ..parse(&text) })
}

fn parse(text: &str) -> Inventory {
    let mut found = Inventory::default();
    // What spreadsheets put before UTF-8.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader =
        csv::ReaderBuilder::new().has_headers(true).trim(csv::Trim::All).flexible(true).from_reader(text.as_bytes());
    let head = reader.headers().map_err(|error| error.to_string()).cloned();
    let (head, places) = match head.and_then(|head| Ok((places(&head)?, head))) {
        Ok((places, head)) => (head, places),
        Err(complaint) => {
            found.complaints.push((1, complaint));
            return found;
        }
    };
    let mut lines = LineCount::of(text);
    for record in reader.records() {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                let line = error.position().map_or(0, |at| lines.at(at));
                found.complaints.push((line, "this is no CSV".to_owned()));
                break;
            }
        };
        let line = record.position().map_or(0, |at| lines.at(at));
        if record.len() > head.len() {
            found.complaints.push((line, format!("{} fields, but the first line has {}", record.len(), head.len())));
            continue;
        }
        let mut wrong = Vec::new();
        let asset = asset(&record, &places, &mut wrong);
        found.complaints.extend(wrong.into_iter().map(|complaint| (line, complaint)));
        let Some(asset) = asset else { continue };
        match found.lines.get(asset.asset.as_str()) {
            Some(first) => found.complaints.push((line, format!("{} is in line {first} already", asset.asset))),
            None => {
                found.lines.insert(asset.asset.to_string(), line);
                found.assets.push(asset);
            }
        }
    }
    if found.assets.is_empty() && found.complaints.is_empty() {
        found.complaints.push((2, "there is no asset".to_owned()));
    }
    found
}

/// Counts lines along the text, once through it: the reader's own count lags behind CRLF and empty lines.
struct LineCount<'a> {
    rest: &'a [u8],
    passed: u64,
    line: u64,
}

impl<'a> LineCount<'a> {
    fn of(text: &'a str) -> Self {
        Self { rest: text.as_bytes(), passed: 0, line: 1 }
    }

    /// The line on which what begins at `at` stands; places are asked for in their order.
    fn at(&mut self, at: &csv::Position) -> u64 {
        let ahead = usize::try_from(at.byte().saturating_sub(self.passed)).unwrap_or(usize::MAX);
        let ahead = ahead.min(self.rest.len());
        let skipped = self.rest[ahead..].iter().take_while(|byte| b"\r\n".contains(byte)).count();
        let (before, rest) = self.rest.split_at(ahead + skipped);
        self.line += before.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.passed += before.len() as u64;
        self.rest = rest;
        self.line
    }
}

/// Where each known column stands in this file.
fn places(head: &StringRecord) -> std::result::Result<[Option<usize>; COLUMNS.len()], String> {
    let mut places = [None; COLUMNS.len()];
    let mut seen = BTreeSet::new();
    for (at, name) in head.iter().enumerate() {
        let known = COLUMNS.iter().position(|column| name.eq_ignore_ascii_case(column));
        let known = known.ok_or_else(|| format!("no column {name:?}; columns are {}", COLUMNS.join(",")))?;
        if !seen.insert(known) {
            return Err(format!("the column {name} is there twice"));
        }
        places[known] = Some(at);
    }
    match (0..NEEDED).find(|column| places[*column].is_none()) {
        Some(missing) => Err(format!("the column {} is missing", COLUMNS[missing])),
        None => Ok(places),
    }
}

/// One line's asset, where name, site and address can be read; whatever is wrong with the line goes into `wrong`.
fn asset(record: &StringRecord, places: &[Option<usize>; COLUMNS.len()], wrong: &mut Vec<String>) -> Option<NewAsset> {
    let field = |column: usize| places[column].and_then(|at| record.get(at)).unwrap_or("");
    let asset: Option<AssetName> = needed(field(0), 0, wrong);
    let site: Option<SiteName> = needed(field(1), 1, wrong);
    let address = match field(2).parse() {
        Ok(address) => Some(address),
        Err(_) if field(2).is_empty() => needed(field(2), 2, wrong),
        Err(_) => {
            wrong.push(format!("address: {:?} is no IPv4 address", field(2)));
            None
        }
    };
    let kind: Option<AssetType> = needed(field(3), 3, wrong);
    let criticality = match field(4).to_ascii_lowercase().as_str() {
        "low" => Criticality::Low,
        "" | "medium" => Criticality::Medium,
        "high" => Criticality::High,
        other => {
            wrong.push(format!("criticality: low, medium or high, not {other:?}"));
            Criticality::Medium
        }
    };
    let mut labels = BTreeMap::new();
    for part in field(5).split(';').map(str::trim).filter(|part| !part.is_empty()) {
        match part.parse::<Label>() {
            Ok(label) if labels.contains_key(&label.key) => {
                wrong.push(format!("labels: {} is there twice", label.key));
            }
            Ok(label) => {
                labels.insert(label.key, label.value);
            }
            Err(error) => wrong.push(format!("labels: {error}")),
        }
    }
    // A type that cannot be read is complained about; the controller can judge the rest all the same.
    let kind = kind.map_or_else(|| "unknown".to_owned(), |kind| kind.to_string());
    Some(NewAsset { asset: asset?, site: site?, address: address?, kind, criticality, labels })
}

/// A field that must be there; what is wrong with it goes into `wrong`.
fn needed<T: FromStr<Err: std::fmt::Display>>(text: &str, column: usize, wrong: &mut Vec<String>) -> Option<T> {
    let name = COLUMNS[column];
    if text.is_empty() {
        wrong.push(format!("{name} is empty"));
        return None;
    }
    text.parse().map_err(|error| wrong.push(format!("{name}: {error}"))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound(text: &str) -> Inventory {
        let found = parse(text);
        assert!(found.is_sound(), "{:?}", found.complaints);
        found
    }

    fn lines(found: &Inventory) -> Vec<u64> {
        found.complaints.iter().map(|(line, _)| *line).collect()
    }

    #[test]
    fn a_spreadsheets_export_is_read() {
        let text = "\u{feff}Asset,site,ADDRESS,type,criticality,labels\r\n\
                    rtu-7, north ,192.168.1.10,rtu,high,\"owner=acme; bay=7\"\r\n\
                    \r\n\
                    rtu-8,north,192.168.1.11,\"rtu-old\",,\r\n";
        let found = sound(text);
        let assets = &found.assets;
        assert_eq!(found.lines.values().copied().collect::<Vec<_>>(), [2, 4]);
        assert_eq!((assets[0].site.as_str(), assets[0].criticality), ("north", Criticality::High));
        assert_eq!(assets[0].labels.get("bay").map(String::as_str), Some("7"));
        assert_eq!((assets[1].kind.as_str(), assets[1].criticality), ("rtu-old", Criticality::Medium));
    }

    #[test]
    fn columns_may_come_in_any_order_and_the_optional_ones_be_left_out() {
        assert_eq!(sound("type,address,site,asset\nplc,10.0.0.1,s,a\n").assets[0].asset.as_str(), "a");
    }

    #[test]
    fn every_complaint_names_its_line_and_a_line_may_have_several() {
        let text = "asset,site,address,type,criticality,labels\n\
                    a,s,10.0.0.1,plc,,\n\
                    b,s,10.0.0.256,plc,,\n\
                    c,s,10.0.0.3,,,\n\
                    a,s,10.0.0.4,plc,,\n\
                    e,s,10.0.0.5,plc,urgent,\n\
                    f,s,10.0.0.6,plc,low,owner\n\
                    \"../g\",s,10.0.0.7,plc,low,\n\
                    h,s,10.0.0.8,plc,low,,extra\n\
                    i,,ten,plc,low,bay\n";
        let found = parse(text);
        assert_eq!(lines(&found), [3, 4, 5, 6, 7, 8, 9, 10, 10, 10], "{:?}", found.complaints);
        assert!(found.complaints[0].1.contains("10.0.0.256") && found.complaints[2].1.contains("line 2"));
        let names: Vec<&str> = found.assets.iter().map(|asset| asset.asset.as_str()).collect();
        assert_eq!(names, ["a", "c", "e", "f"], "the controller is asked about what can be read");
    }

    #[test]
    fn ours_and_the_controllers_complaints_are_told_together_by_line() {
        let mut found = parse("asset,site,address,type\na,s,10.0.0.1,plc\n\nb,s,10.0.0.2,plc\nc,s,ten,plc\n");
        found.name = "sites.csv".to_owned();
        let told = found.refused("b: there is an asset b already\na: no site s\nand 3 more").message;
        assert_eq!(
            told,
            "nothing was imported:\n  sites.csv:2: a: no site s\n  sites.csv:4: b: there is an asset b already\n  \
             sites.csv:5: address: \"ten\" is no IPv4 address\n  and 3 more"
        );
    }

    #[test]
    fn a_head_line_that_is_none_is_line_one() {
        for text in ["rtu-7,north,10.0.0.1,rtu\n", "asset,site,address\n", "asset,asset,site,address,type\n", ""] {
            assert_eq!(lines(&parse(text)), [1], "{text:?}");
        }
        assert_eq!(parse("asset,site,address,type\n").complaints, [(2, "there is no asset".to_owned())]);
    }

    #[test]
    fn garbage_neither_panics_nor_passes() {
        for text in ["\"", "a,\"b\n", "\u{0}\u{0}", ",,,,\n,,,,\n", "asset,site,address,type\n\"\n\"\"\"\n,,,,,,,,\n"] {
            assert!(!parse(text).is_sound(), "{text:?}");
        }
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("photo.jpg");
        std::fs::write(&file, [0xff, 0xd8, 0xff, 0xe0, 0, 1]).expect("written");
        let failure = read(&file).expect_err("no text");
        assert!(failure.message.contains("photo.jpg") && !failure.message.contains("stream"), "{failure}");
        assert!(failure.next.is_some_and(|next| next.contains("UTF-8")), "{}", failure.message);
    }
}
