//! Task profiles of the policy in force.

use clap::Subcommand;
use thinlane_model::TaskName;
use thinlane_wire::api::TaskView;

use crate::api::paths::item;
use crate::context::Context;
use crate::failure::Result;
use crate::out::{Table, text, time};

#[derive(Subcommand)]
#[command(arg_required_else_help = true)]
pub enum Task {
    /// List what can be asked for
    Ls,
    /// Show one task profile
    Show {
        /// The task's name
        task: TaskName,
    },
}

pub async fn run(context: &Context, command: Task) -> Result<()> {
    let client = context.client()?;
    match command {
        Task::Ls => {
            let tasks: Vec<TaskView> = client.list("/tasks", usize::MAX).await?;
            context.out.list(&tasks, "the policy in force has no task", table)
        }
        Task::Show { task } => {
            let task: TaskView = client.get(&item("tasks", task)).await?;
            context.out.show(&task, show)
        }
    }
}

fn table(tasks: &[TaskView]) -> Table {
    let mut table = Table::new(&["task", "protocol", ">port", ">default", ">longest", "title"]);
    for task in tasks {
        table.row([
            task.task.to_string(),
            task.protocol.to_string(),
            task.port.to_string(),
            time::duration(task.default_seconds),
            time::duration(task.max_seconds),
            task.title.clone(),
        ]);
    }
    table
}

fn show(task: &TaskView) -> String {
    text::pairs(&[
        ("task", task.task.to_string()),
        ("title", task.title.clone()),
        ("protocol", task.protocol.to_string()),
        ("port", task.port.to_string()),
        ("default", time::duration(task.default_seconds)),
        ("longest", time::duration(task.max_seconds)),
        (
            "extensions",
            match task.extend_seconds {
                None => "by the engineer or ops, up to the longest".to_owned(),
                Some(0) => "by ops alone".to_owned(),
                Some(most) => {
                    format!("by the engineer up to {} in all, by ops up to the longest", time::duration(most))
                }
            },
        ),
        ("without controller", format!("closes after {}", time::duration(task.offline_seconds))),
        ("idle", task.idle_seconds.map(|secs| format!("closes after {}", time::duration(secs))).unwrap_or_default()),
        ("packets a second", task.limits.packets_per_second.map(|most| most.to_string()).unwrap_or_default()),
        ("connections", task.limits.connections.map(|most| most.to_string()).unwrap_or_default()),
    ])
}
