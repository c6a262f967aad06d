//! An inventory as CSV (RFC 4180), read strictly: every complaint names its line and column.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use csv::StringRecord;
use thinlane_model::Label;
use thinlane_wire::api::{Criticality, NewAsset};

use crate::failure::{Failure, Result};
use crate::home::read_bounded;

/// The largest file, in bytes.
const LARGEST: u64 = 8 * 1024 * 1024;
/// Complaints that are shown at once.
const SHOWN: usize = 10;
const COLUMNS: [&str; 6] = ["asset", "site", "address", "type", "criticality", "labels"];
/// Those that every file must have.
const NEEDED: usize = 4;

/// Where each asset stands, by its name.
type Lines = BTreeMap<String, u64>;

/// An inventory and the line of each of its assets.
pub struct Inventory {
    name: String,
    pub assets: Vec<NewAsset>,
    lines: Lines,
}

impl Inventory {
    /// The controller's complaints, which begin with an asset's name, with the line that each is about.
    pub fn located(&self, complaints: &str) -> String {
        let located = |complaint: &str| {
            let line = complaint.split_once(": ").and_then(|(asset, _)| self.lines.get(asset));
            line.map_or_else(|| complaint.to_owned(), |line| format!("{}:{line}: {complaint}", self.name))
        };
        format!("nothing was imported:\n  {}", complaints.lines().map(located).collect::<Vec<_>>().join("\n  "))
    }
}

/// The assets of a file; the first complaints if there is anything to complain about.
pub fn read(file: &Path) -> Result<Inventory> {
    let name = file.display();
    let text = read_bounded(file, LARGEST)?.ok_or_else(|| {
        Failure::failed(format!("{name} does not exist"))
            .next(format!("give the path of a CSV file whose first line is {}", COLUMNS.join(",")))
    })?;
    let complaints = match parse(&text) {
        Ok((assets, lines)) => return Ok(Inventory { name: name.to_string(), assets, lines }),
        Err(complaints) => complaints,
    };
    let mut lines: Vec<String> = complaints.iter().take(SHOWN).map(|complaint| format!("{name}:{complaint}")).collect();
    if complaints.len() > SHOWN {
        lines.push(format!("and {} more", complaints.len() - SHOWN));
    }
    Err(Failure::failed(format!("nothing was imported:\n  {}", lines.join("\n  ")))
        .next(format!("correct {name}; the first line is {}", COLUMNS.join(","))))
}

/// Complaints are `LINE: what`.
fn parse(text: &str) -> std::result::Result<(Vec<NewAsset>, Lines), Vec<String>> {
    // What spreadsheets put before UTF-8.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader =
        csv::ReaderBuilder::new().has_headers(true).trim(csv::Trim::All).flexible(true).from_reader(text.as_bytes());
    let head = reader.headers().map_err(|error| vec![format!("1: {error}")])?.clone();
    let places = places(&head).map_err(|complaint| vec![format!("1: {complaint}")])?;
    let (mut assets, mut complaints, mut names) = (Vec::new(), Vec::new(), BTreeMap::new());
    let mut lines = LineCount::of(text);
    for record in reader.records() {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                complaints.push(format!("{}: this is no CSV", error.position().map_or(0, |at| lines.at(at))));
                break;
            }
        };
        let line = record.position().map_or(0, |at| lines.at(at));
        if record.len() > head.len() {
            complaints.push(format!("{line}: {} fields, but the first line has {}", record.len(), head.len()));
            continue;
        }
        match asset(&record, &places) {
            Ok(asset) => {
                if let Some(first) = names.insert(asset.asset.to_string(), line) {
                    complaints.push(format!("{line}: {} is in line {first} already", asset.asset));
                }
                assets.push(asset);
            }
            Err(complaint) => complaints.push(format!("{line}: {complaint}")),
        }
    }
    if assets.is_empty() && complaints.is_empty() {
        complaints.push("2: there is no asset".to_owned());
    }
    if complaints.is_empty() { Ok((assets, names)) } else { Err(complaints) }
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

fn asset(record: &StringRecord, places: &[Option<usize>; COLUMNS.len()]) -> std::result::Result<NewAsset, String> {
    let field = |column: usize| places[column].and_then(|at| record.get(at)).unwrap_or("");
    let needed = |column: usize| match field(column) {
        "" => Err(format!("{} is empty", COLUMNS[column])),
        text => Ok(text),
    };
    let odd = |column: usize| move |error: &dyn std::fmt::Display| format!("{}: {error}", COLUMNS[column]);
    let mut labels = BTreeMap::new();
    for part in field(5).split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let label: Label = part.parse().map_err(|error| odd(5)(&error))?;
        if labels.insert(label.key.clone(), label.value).is_some() {
            return Err(format!("labels: {} is there twice", label.key));
        }
    }
    Ok(NewAsset {
        asset: needed(0)?.parse().map_err(|error| odd(0)(&error))?,
        site: needed(1)?.parse().map_err(|error| odd(1)(&error))?,
        address: needed(2)?.parse().map_err(|_| format!("address: {:?} is no IPv4 address", field(2)))?,
        kind: needed(3)?.to_owned(),
        criticality: match field(4).to_ascii_lowercase().as_str() {
            "low" => Criticality::Low,
            "" | "medium" => Criticality::Medium,
            "high" => Criticality::High,
            other => return Err(format!("criticality: low, medium or high, not {other:?}")),
        },
        labels,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spreadsheets_export_is_read() {
        let text = "\u{feff}Asset,site,ADDRESS,type,criticality,labels\r\n\
                    rtu-7, north ,192.168.1.10,rtu,high,\"owner=acme; bay=7\"\r\n\
                    \r\n\
                    rtu-8,north,192.168.1.11,\"rtu, old\",,\r\n";
        let (assets, lines) = parse(text).expect("assets");
        assert_eq!(assets.len(), 2);
        assert_eq!(lines.values().copied().collect::<Vec<_>>(), [2, 4]);
        assert_eq!((assets[0].site.as_str(), assets[0].criticality), ("north", Criticality::High));
        assert_eq!(assets[0].labels.get("bay").map(String::as_str), Some("7"));
        assert_eq!((assets[1].kind.as_str(), assets[1].criticality), ("rtu, old", Criticality::Medium));
    }

    #[test]
    fn columns_may_come_in_any_order_and_the_optional_ones_be_left_out() {
        let (assets, _) = parse("type,address,site,asset\nplc,10.0.0.1,s,a\n").expect("assets");
        assert_eq!(assets[0].asset.as_str(), "a");
    }

    #[test]
    fn every_complaint_names_its_line() {
        let text = "asset,site,address,type,criticality,labels\n\
                    a,s,10.0.0.1,plc,,\n\
                    b,s,10.0.0.256,plc,,\n\
                    c,s,10.0.0.3,,,\n\
                    a,s,10.0.0.4,plc,,\n\
                    e,s,10.0.0.5,plc,urgent,\n\
                    f,s,10.0.0.6,plc,low,owner\n\
                    \"../g\",s,10.0.0.7,plc,low,\n\
                    h,s,10.0.0.8,plc,low,,extra\n";
        let complaints = parse(text).expect_err("complaints");
        let lines: Vec<&str> = complaints.iter().filter_map(|complaint| complaint.split(':').next()).collect();
        assert_eq!(lines, ["3", "4", "5", "6", "7", "8", "9"], "{complaints:?}");
        assert!(complaints[0].contains("10.0.0.256") && complaints[2].contains("line 2"), "{complaints:?}");
    }

    #[test]
    fn what_the_controller_says_of_an_asset_names_its_line_too() {
        let (assets, lines) = parse("asset,site,address,type\na,s,10.0.0.1,plc\n\nb,s,10.0.0.2,plc\n").expect("assets");
        let inventory = Inventory { name: "sites.csv".to_owned(), assets, lines };
        let told = inventory.located("b: there is an asset b already\nand 3 more");
        assert_eq!(told, "nothing was imported:\n  sites.csv:4: b: there is an asset b already\n  and 3 more");
    }

    #[test]
    fn a_head_line_that_is_none_is_line_one() {
        for text in ["rtu-7,north,10.0.0.1,rtu\n", "asset,site,address\n", "asset,asset,site,address,type\n", ""] {
            let complaints = parse(text).expect_err("complaints");
            assert!(complaints[0].starts_with("1: "), "{text:?}: {complaints:?}");
        }
        assert_eq!(parse("asset,site,address,type\n").expect_err("nothing"), ["2: there is no asset"]);
    }

    #[test]
    fn garbage_neither_panics_nor_passes() {
        for text in ["\"", "a,\"b\n", "\u{0}\u{0}", ",,,,\n,,,,\n", "asset,site,address,type\n\"\n\"\"\"\n,,,,,,,,\n"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
