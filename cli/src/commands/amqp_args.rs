//! Where RabbitMQ is: flags that several commands share.

use redrive_shared::id::Name;
use toml::{Table, Value};

/// RabbitMQ, and what is pushed to it.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "RabbitMQ")]
pub struct AmqpArgs {
    /// RabbitMQ's address, amqp://[USER:PASSWORD@]HOST[,HOST…][/VHOST] or amqps://…: push, outcomes and ingress.
    #[arg(long, value_name = "URL", hide_env_values = true)]
    pub amqp: Option<String>,
    /// Queues whose tasks are pushed; =N where consumers that are not Redrive's have room for N.
    #[arg(long, value_name = "QUEUE[=N],…", value_delimiter = ',', value_parser = push)]
    pub push: Vec<(Name, Option<u32>)>,
}

impl AmqpArgs {
    /// Puts what was given into the section `[coordinator]`.
    pub fn write(&self, section: &mut Table) {
        let mut amqp = Table::new();
        if let Some(url) = &self.amqp {
            amqp.insert("url".into(), Value::String(url.clone()));
        }
        if !self.push.is_empty() {
            let queues = self.push.iter().map(|(queue, most)| {
                let most = most.map(|most| ("max_outstanding".to_owned(), Value::Integer(most.into())));
                (queue.to_string(), Value::Table(most.into_iter().collect()))
            });
            amqp.insert("push".into(), Value::Table(queues.collect()));
        }
        if !amqp.is_empty() {
            section.insert("amqp".into(), Value::Table(amqp));
        }
    }
}

/// `QUEUE` or `QUEUE=N`.
fn push(text: &str) -> Result<(Name, Option<u32>), String> {
    let (queue, most) = match text.split_once('=') {
        Some((queue, most)) => {
            let most = most.parse().map_err(|_| format!("{most:?} is not a number of tasks"))?;
            (queue, Some(most))
        }
        None => (text, None),
    };
    Ok((Name::new(queue).map_err(|error| error.to_string())?, most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_given_is_set() {
        let mut section = Table::new();
        AmqpArgs::default().write(&mut section);
        assert!(section.is_empty());
        let given =
            AmqpArgs { amqp: Some("amqp://h".into()), push: vec![push("a").unwrap(), push("b=5").unwrap()] };
        given.write(&mut section);
        let text = section.to_string();
        assert_eq!(
            text,
            "[amqp]\nurl = \"amqp://h\"\n\n[amqp.push.a]\n\n[amqp.push.b]\nmax_outstanding = 5\n"
        );
        assert!(push("a=many").is_err() && push("=1").is_err());
    }
}
