//! Calls of the HTTPS API with curl, which says how long the server took to answer.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use thinlane_lab::{Lab, now_ms};

const BASE: &str = "https://198.51.100.2:7443/api/v1";

/// Bearer tokens of the engineer and the operator.
pub struct Api {
    erik: String,
    olga: String,
}

/// An answer and its times.
pub struct Answer {
    pub body: Value,
    /// When the request had been written, by the wall clock.
    pub sent_ms: f64,
    /// From the request being written to the first byte of the answer.
    pub took_ms: f64,
}

impl Api {
    pub fn new(lab: &Lab) -> Result<Self> {
        let token = |who: &str| -> Result<String> {
            Ok(lab.thinlane(who, &["whoami", "--token"]).run()?.good()?.stdout.trim().to_owned())
        };
        Ok(Self { erik: token("erik")?, olga: token("olga")? })
    }

    fn post(&self, lab: &Lab, token: &str, path: &str, body: &Value) -> Result<Answer> {
        // The token goes through a file of curl's options: nothing secret in argv, here neither.
        let config = lab.root().join("bench.curl");
        std::fs::write(&config, format!("header = \"Authorization: Bearer {token}\"\n"))?;
        let before = now_ms();
        let out = lab
            .on(
                "hq",
                &[
                    "curl",
                    "-sk",
                    "-K",
                    &config.to_string_lossy(),
                    "-H",
                    "content-type: application/json",
                    "-d",
                    &body.to_string(),
                    "-w",
                    "\n%{time_pretransfer} %{time_starttransfer} %{time_total}",
                    &format!("{BASE}/{path}"),
                ],
            )
            .run()?
            .good()?;
        let after = now_ms();
        let (answer, times) = out.stdout.rsplit_once('\n').context("curl's times")?;
        let times: Vec<f64> =
            times.split(' ').filter_map(|time| time.parse::<f64>().ok()).map(|time| time * 1000.0).collect();
        let [sent, first, total] = times[..] else { anyhow::bail!("curl printed {times:?}") };
        let _ = before;
        Ok(Answer {
            body: serde_json::from_str(answer).with_context(|| answer.to_owned())?,
            sent_ms: after - total + sent,
            took_ms: first - sent,
        })
    }

    /// Activates an approved request as a client without an interface would.
    pub fn activate(&self, lab: &Lab, request: &str) -> Result<Answer> {
        let key = |words: &str| -> Result<String> {
            Ok(lab.on("hq", &["sh", "-c", words]).run()?.good()?.stdout.trim().to_owned())
        };
        let body = json!({"public_key": key("wg genkey | wg pubkey")?, "preshared_key": key("wg genpsk")?});
        let answer = self.post(lab, &self.erik, &format!("requests/{request}/activate"), &body)?;
        anyhow::ensure!(answer.body["session"]["id"].is_string(), "{}", answer.body);
        Ok(answer)
    }

    pub fn kill(&self, lab: &Lab, session: &str) -> Result<Answer> {
        self.post(lab, &self.olga, &format!("sessions/{session}/kill"), &json!({"reason": "bench"}))
    }
}
