import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicReference;
import java.util.zip.CRC32;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Publishes texts to headrace, and reads its answers, each once and in the order of its partition.
 *
 * <pre>
 * publish BOOTSTRAP REQUESTS        a text a line from standard input
 * read BOOTSTRAP RESULTS GROUP      until SIGTERM; members of a group share the partitions
 * </pre>
 *
 * Each acknowledged request and each accepted answer is a line of JSON on standard output.
 */
public final class Headrace {
    private static final ObjectMapper JSON = new ObjectMapper();

    public static void main(String[] arguments) throws Exception {
        if (arguments.length == 3 && arguments[0].equals("publish")) {
            publish(arguments[1], arguments[2]);
        } else if (arguments.length == 4 && arguments[0].equals("read")) {
            read(arguments[1], arguments[2], arguments[3]);
        } else {
            System.err.println("usage: publish BOOTSTRAP REQUESTS | read BOOTSTRAP RESULTS GROUP");
            System.exit(2);
        }
    }

    /** A request for each line. Only what all in-sync replicas have is never lost, so they are waited for. */
    private static void publish(String bootstrap, String topic) throws Exception {
        Map<String, Object> settings = Map.of("bootstrap.servers", bootstrap, "acks", "all", "enable.idempotence", true);
        AtomicReference<Exception> failed = new AtomicReference<>();
        try (var producer = new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer());
                var lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8))) {
            int number = 0;
            for (String text = lines.readLine(); text != null; text = lines.readLine()) {
                byte[] value = JSON.writeValueAsBytes(JSON.createObjectNode().put("text", text).put("id", "line-" + number++));
                // It blocks while too many wait, so memory is bounded.
                producer.send(new ProducerRecord<>(topic, value), (placed, error) -> {
                    if (error != null) {
                        failed.compareAndSet(null, error);
                        return;
                    }
                    CRC32 crc = new CRC32();
                    crc.update(value);
                    print(JSON.createObjectNode().put("partition", placed.partition()).put("offset", placed.offset())
                            .put("crc", crc.getValue()));
                });
            }
            producer.flush();
        }
        if (failed.get() != null) {
            throw failed.get();
        }
    }

    /**
     * Where the reading of a partition goes on: the position, and the highest request offset accepted before it. Both
     * belong together, so both are in one commit: the position as its offset, and all of it as its metadata.
     */
    private static final class Place {
        private long position;
        private Long highest;

        /** Whether the answer is news; a worker that was stopped or frozen may have answered again. */
        private boolean accepts(JsonNode answer, int partition) {
            long offset = answer.get("offset").longValue();
            long after = answer.get("after").longValue();
            if (highest != null && offset <= highest) {
                return false;
            }
            if (highest != null && after > highest) {
                System.err.printf("partition %d: requests %d to %d have no answer%n", partition, highest + 1, after);
            }
            highest = offset;
            return true;
        }

        private OffsetAndMetadata committed() {
            return new OffsetAndMetadata(position,
                    JSON.createObjectNode().put("position", position).put("highest", highest).toString());
        }

        private static Place of(TopicPartition partition, OffsetAndMetadata committed) {
            Place place = new Place();
            if (committed == null) {
                return place; // from the beginning
            }
            try {
                JsonNode kept = JSON.readTree(committed.metadata());
                if (kept.path("position").asLong(-1) == committed.offset()) {
                    place.position = committed.offset();
                    place.highest = kept.path("highest").isNumber() ? kept.get("highest").longValue() : null;
                    return place;
                }
            } catch (JsonProcessingException noneOfOurs) {
                // Said below.
            }
            throw new IllegalStateException("The group has a commit of " + partition
                    + " without its highest request: another tool made it. Read with a new group.");
        }
    }

    private static void read(String bootstrap, String topic, String group) throws IOException {
        Map<String, Object> settings = Map.of("bootstrap.servers", bootstrap, "group.id", group,
                "enable.auto.commit", false, "auto.offset.reset", "earliest", "max.poll.records", 1000);
        Map<TopicPartition, Place> places = new HashMap<>();
        try (var consumer = new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            AtomicBoolean stopping = new AtomicBoolean();
            CountDownLatch ended = stopsAtSigterm(stopping);
            consumer.subscribe(List.of(topic), new ConsumerRebalanceListener() {
                @Override
                public void onPartitionsAssigned(Collection<TopicPartition> assigned) {
                    consumer.committed(Set.copyOf(assigned)).forEach((one, kept) -> places.put(one, Place.of(one, kept)));
                }

                @Override
                public void onPartitionsRevoked(Collection<TopicPartition> revoked) {
                    revoked.forEach(places::remove);
                }
            });
            try {
                while (!stopping.get()) {
                    var records = consumer.poll(Duration.ofSeconds(1));
                    for (TopicPartition partition : records.partitions()) {
                        Place place = places.get(partition);
                        for (ConsumerRecord<byte[], byte[]> record : records.records(partition)) {
                            ObjectNode answer = (ObjectNode) JSON.readTree(record.value());
                            // The requests and results topics have the same partitions.
                            if (place.accepts(answer, partition.partition())) {
                                print(answer.put("partition", partition.partition()));
                            }
                            place.position = record.offset() + 1;
                        }
                        consumer.commitSync(Map.of(partition, place.committed()));
                    }
                }
            } finally {
                consumer.close();
                ended.countDown();
            }
        }
    }

    /** Sets {@code stopping} at SIGTERM, and lets the process end only when the latch says that all is committed. */
    private static CountDownLatch stopsAtSigterm(AtomicBoolean stopping) {
        CountDownLatch ended = new CountDownLatch(1);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            stopping.set(true);
            try {
                ended.await();
            } catch (InterruptedException interrupted) {
                Thread.currentThread().interrupt();
            }
        }));
        return ended;
    }

    private static synchronized void print(ObjectNode line) {
        System.out.println(line);
    }
}
