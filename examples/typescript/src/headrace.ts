// Publish texts to headrace, and read its answers, each once and in the order of its partition.
//
//   node headrace.js publish BOOTSTRAP REQUESTS        a text a line from standard input
//   node headrace.js read BOOTSTRAP RESULTS GROUP      until SIGTERM; members of a group share the partitions
//
// Each acknowledged request and each accepted answer is a line of JSON on standard output.

import { createInterface } from "node:readline";
import { crc32 } from "node:zlib";
import { type EachBatchPayload, Kafka, logLevel } from "kafkajs";

const BATCH = 500;

type Answer = { offset: number; after: number; crc: number; status: string; label?: string | null };

// Where the reading of a partition goes on: the position, and the highest request offset accepted before it. Both belong
// together, so both are in one commit: the position as its offset, and all of it as its metadata.
type Place = { position: number; highest: number | null };

const connected = (bootstrap: string): Kafka =>
  new Kafka({ clientId: "headrace-example", brokers: bootstrap.split(","), logLevel: logLevel.ERROR });

const print = (line: object): boolean => process.stdout.write(JSON.stringify(line) + "\n");

/** Send a request for each line. Only what all in-sync replicas have is never lost, so they are waited for (acks -1). */
async function publish(bootstrap: string, topic: string): Promise<void> {
  const producer = connected(bootstrap).producer({ idempotent: true, maxInFlightRequests: 1 });
  await producer.connect();
  const send = async (values: Buffer[]): Promise<void> => {
    // One partition at a time: KafkaJS tells where a batch begins, and not where each message lies.
    const partition = next++ % partitions;
    const messages = values.map((value) => ({ value, partition }));
    const [placed] = await producer.send({ topic, messages, acks: -1 });
    if (placed === undefined) throw new Error("the broker acknowledged nothing");
    const first = Number(placed.baseOffset);
    values.forEach((value, index) => print({ partition, offset: first + index, crc: crc32(value) }));
  };
  const admin = connected(bootstrap).admin();
  await admin.connect();
  const partitions = (await admin.fetchTopicMetadata({ topics: [topic] })).topics[0]?.partitions.length ?? 0;
  await admin.disconnect();
  let [next, number] = [0, 0];
  let waiting: Buffer[] = [];
  for await (const text of createInterface({ input: process.stdin })) {
    waiting.push(Buffer.from(JSON.stringify({ text, id: `line-${number++}` })));
    if (waiting.length === BATCH) {
      await send(waiting);
      waiting = [];
    }
  }
  if (waiting.length > 0) await send(waiting);
  await producer.disconnect();
}

/** Whether the answer is news; a worker that was stopped or frozen may have answered again. */
function accepts(place: Place, answer: Answer, partition: number): boolean {
  const { highest } = place;
  if (highest !== null && answer.offset <= highest) return false;
  if (highest !== null && answer.after > highest) {
    console.error(`partition ${partition}: requests ${highest + 1} to ${answer.after} have no answer`);
  }
  place.highest = answer.offset;
  return true;
}

async function read(bootstrap: string, topic: string, group: string): Promise<void> {
  const kafka = connected(bootstrap);
  const admin = kafka.admin();
  const consumer = kafka.consumer({ groupId: group, sessionTimeout: 10_000 });
  let places = new Map<number, Place>();
  // After a rebalance another member may have read on.
  consumer.on(consumer.events.GROUP_JOIN, () => (places = new Map()));
  await Promise.all([admin.connect(), consumer.connect()]);

  const committed = async (partition: number): Promise<Place> => {
    const topics = await admin.fetchOffsets({ groupId: group, topics: [topic] });
    const found = topics[0]?.partitions.find((one) => one.partition === partition);
    if (found === undefined || Number(found.offset) < 0) return { position: 0, highest: null };
    try {
      const place = JSON.parse(found.metadata ?? "") as Place;
      if (place.position === Number(found.offset)) return place;
    } catch {
      // Said below.
    }
    throw new Error(
      `Group ${group} has a commit of partition ${partition} without its highest request: another tool made it. ` +
        "Read with a new group.",
    );
  };

  const take = async ({ batch, resolveOffset, heartbeat }: EachBatchPayload): Promise<void> => {
    const { partition } = batch;
    const place = places.get(partition) ?? (await committed(partition));
    places.set(partition, place);
    for (const message of batch.messages) {
      const answer = JSON.parse(String(message.value)) as Answer;
      // The requests and results topics have the same partitions.
      if (accepts(place, answer, partition)) print({ partition, ...answer });
      place.position = Number(message.offset) + 1;
    }
    resolveOffset(batch.lastOffset());
    const metadata = JSON.stringify(place);
    await consumer.commitOffsets([{ topic, partition, offset: String(place.position), metadata }]);
    await heartbeat();
  };

  await consumer.subscribe({ topic, fromBeginning: true });
  const failed = new Promise<never>((_, reject) =>
    consumer.on(consumer.events.CRASH, ({ payload }) => {
      if (!payload.restart) reject(payload.error);
    }),
  );
  let stopping = false;
  const stopped = new Promise<void>((resolve) => {
    for (const signal of ["SIGTERM", "SIGINT"]) process.once(signal, () => resolve());
  }).then(() => (stopping = true));
  let working: Promise<void> = Promise.resolve();
  await consumer.run({
    autoCommit: false,
    eachBatchAutoResolve: false,
    eachBatch: async (payload) => {
      if (!stopping) await (working = take(payload));
    },
  });
  await Promise.race([stopped, failed]);
  // Once a consumer stops, KafkaJS drops commits silently. So what was printed is committed first.
  await working;
  await consumer.disconnect();
  await admin.disconnect();
}
const [command, bootstrap, topic, group] = process.argv.slice(2);
if (command === "publish" && bootstrap !== undefined && topic !== undefined) {
  await publish(bootstrap, topic);
} else if (command === "read" && bootstrap !== undefined && topic !== undefined && group !== undefined) {
  await read(bootstrap, topic, group);
} else {
  console.error("usage: publish BOOTSTRAP REQUESTS | read BOOTSTRAP RESULTS GROUP");
  process.exitCode = 2;
}
