//! A worker as the consumer of a queue. Knows the shape alone.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// How the worker consumes a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct QueueConsumer {
    /// The maximum number of messages in a batch. Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub max_batch_size: Option<u32>,
    /// The maximum number of seconds to wait until a batch is full. Default: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 60))]
    pub max_batch_timeout: Option<u32>,
    /// The maximum number of retries of a message. Default: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub max_retries: Option<u32>,
    /// The maximum number of concurrent invocations of the worker. Default: as many as the backlog needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 250))]
    pub max_concurrency: Option<u32>,
    /// The number of seconds before a message is retried. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 86400))]
    pub retry_delay: Option<u32>,
    /// The queue that gets the messages that still fail after all retries. `{customer}` and `{environment}` are replaced. Default: none;
    /// these messages are dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter_queue: Option<String>,
}

/// The milliseconds of a second: the API's unit of a timeout.
const MILLISECONDS: u32 = 1000;

impl QueueConsumer {
    /// Returns it as an entry of `queues.consumers` in wrangler's configuration.
    pub fn wrangler(&self, queue: &str) -> Value {
        let fields = [
            ("max_batch_size", self.max_batch_size),
            ("max_batch_timeout", self.max_batch_timeout),
            ("max_retries", self.max_retries),
            ("max_concurrency", self.max_concurrency),
            ("retry_delay", self.retry_delay),
        ];
        let mut entry: Map<String, Value> =
            fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.into()))).collect();
        entry.insert("queue".to_owned(), queue.into());
        entry.extend(
            self.dead_letter_queue.as_ref().map(|queue| ("dead_letter_queue".to_owned(), queue.clone().into())),
        );
        entry.into()
    }

    /// Reads an entry of `queues.consumers`, with its queue; none if it has more than a spec can say.
    pub fn of_wrangler(entry: &Value) -> Option<(String, QueueConsumer)> {
        let mut entry = entry.as_object()?.clone();
        // The only type that wrangler's configuration has.
        if entry.remove("type").is_some_and(|kind| kind != "worker") {
            return None;
        }
        let queue = entry.remove("queue")?.as_str()?.to_owned();
        let mut number = |key: &str| match entry.remove(key) {
            None | Some(Value::Null) => Some(None),
            Some(value) => Some(Some(u32::try_from(value.as_u64()?).ok()?)),
        };
        let (max_batch_size, max_batch_timeout) = (number("max_batch_size")?, number("max_batch_timeout")?);
        let (max_retries, max_concurrency) = (number("max_retries")?, number("max_concurrency")?);
        let retry_delay = number("retry_delay")?;
        let dead_letter_queue = entry.remove("dead_letter_queue").and_then(|queue| queue.as_str().map(str::to_owned));
        let consumer = QueueConsumer {
            max_batch_size,
            max_batch_timeout,
            max_retries,
            max_concurrency,
            retry_delay,
            dead_letter_queue,
        };
        entry.is_empty().then_some((queue, consumer))
    }

    /// Returns the body of the request that makes a worker the consumer.
    pub fn api(&self, worker: &str) -> Value {
        let settings = [
            ("batch_size", self.max_batch_size),
            ("max_wait_time_ms", self.max_batch_timeout.map(|seconds| seconds * MILLISECONDS)),
            ("max_retries", self.max_retries),
            ("max_concurrency", self.max_concurrency),
            ("retry_delay", self.retry_delay),
        ];
        let settings: Map<String, Value> =
            settings.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.into()))).collect();
        let mut body = json!({"type": "worker", "script_name": worker, "settings": settings});
        if let Some(queue) = &self.dead_letter_queue {
            body["dead_letter_queue"] = queue.clone().into();
        }
        body
    }

    /// Reads a consumer as the API shows it: with a value for each setting.
    pub fn of_api(consumer: &Value) -> QueueConsumer {
        let number = |key: &str| consumer["settings"][key].as_u64().and_then(|number| u32::try_from(number).ok());
        QueueConsumer {
            max_batch_size: number("batch_size"),
            max_batch_timeout: number("max_wait_time_ms").map(|time| time / MILLISECONDS),
            max_retries: number("max_retries"),
            max_concurrency: number("max_concurrency"),
            retry_delay: number("retry_delay"),
            dead_letter_queue: consumer["dead_letter_queue"]
                .as_str()
                .filter(|queue| !queue.is_empty())
                .map(str::to_owned),
        }
    }

    /// Returns whether a consumer at the platform is as this one says: it has a value for each setting, also for those that aren't set here.
    pub fn is_met_by(&self, live: &QueueConsumer) -> bool {
        let numbers = [
            (self.max_batch_size, live.max_batch_size),
            (self.max_batch_timeout, live.max_batch_timeout),
            (self.max_retries, live.max_retries),
            (self.max_concurrency, live.max_concurrency),
            (self.retry_delay, live.retry_delay),
        ];
        numbers.into_iter().all(|(wanted, live)| wanted.is_none() || wanted == live)
            && self.dead_letter_queue == live.dead_letter_queue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_as_wrangler_and_the_api_want_it_and_read_again() {
        let consumer = QueueConsumer {
            max_batch_size: Some(7),
            max_batch_timeout: Some(2),
            retry_delay: Some(0),
            dead_letter_queue: Some("dead".to_owned()),
            ..QueueConsumer::default()
        };
        let entry = consumer.wrangler("jobs");
        assert_eq!(
            entry,
            json!({"queue": "jobs", "max_batch_size": 7, "max_batch_timeout": 2, "retry_delay": 0, "dead_letter_queue": "dead"})
        );
        assert_eq!(QueueConsumer::of_wrangler(&entry), Some(("jobs".to_owned(), consumer.clone())));
        for more in
            [json!({"queue": "q", "visibility_timeout_ms": 1}), json!({"queue": "q", "type": "http_pull"}), json!({})]
        {
            assert_eq!(QueueConsumer::of_wrangler(&more), None, "{more}");
        }
        let body = consumer.api("w");
        let settings = json!({"batch_size": 7, "max_wait_time_ms": 2000, "retry_delay": 0});
        assert_eq!(
            body,
            json!({"type": "worker", "script_name": "w", "settings": settings, "dead_letter_queue": "dead"})
        );
        let mut live = body.clone();
        live["settings"]["max_retries"] = 3.into();
        let live = QueueConsumer::of_api(&live);
        assert!(consumer.is_met_by(&live) && !live.is_met_by(&consumer));
        assert!(!QueueConsumer::default().is_met_by(&live), "its dead letters go elsewhere");
    }
}
