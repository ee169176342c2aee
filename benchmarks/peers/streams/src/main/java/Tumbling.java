import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.processor.TimestampExtractor;

/** Kafka Streams: a ten-second tumbling mean per device, on RocksDB with a changelog. BOOTSTRAP TOPIC FOLDER */
public final class Tumbling {
    @JsonIgnoreProperties(ignoreUnknown = true)
    public static final class Reading {
        public long ts;
        public double temperature;
    }

    /** Sum and count, 16 bytes in the store. */
    record Sum(double total, long count) {}

    static final AtomicLong SEEN = new AtomicLong();

    public static void main(String[] words) throws Exception {
        ObjectReader json = new ObjectMapper().readerFor(Reading.class);
        Deserializer<Reading> parse = (topic, data) -> {
            try {
                return json.readValue(data);
            } catch (java.io.IOException error) {
                throw new IllegalArgumentException(error);
            }
        };
        Serde<Reading> readings = Serdes.serdeFrom((topic, value) -> { throw new UnsupportedOperationException(); }, parse);
        Serde<Sum> sums = Serdes.serdeFrom(
            (topic, sum) -> sum == null ? null
                : ByteBuffer.allocate(16).putDouble(sum.total).putLong(sum.count).array(),
            (topic, data) -> {
                if (data == null) return null;
                ByteBuffer buffer = ByteBuffer.wrap(data);
                return new Sum(buffer.getDouble(), buffer.getLong());
            });
        TimestampExtractor eventTime = (record, before) -> ((Reading) record.value()).ts;

        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(words[1], Consumed.with(Serdes.String(), readings).withTimestampExtractor(eventTime))
            .groupByKey()
            .windowedBy(TimeWindows.ofSizeWithNoGrace(Duration.ofSeconds(10)))
            .aggregate(
                () -> new Sum(0, 0),
                (device, reading, sum) -> {
                    SEEN.lazySet(SEEN.get() + 1);
                    return new Sum(sum.total + reading.temperature, sum.count + 1);
                },
                Materialized.with(Serdes.String(), sums))
            .toStream()
            .map((window, sum) -> KeyValue.pair(
                window.key() + " " + window.window().start(), Double.toString(sum.total / sum.count)))
            .to("bench-streams-results", Produced.with(Serdes.String(), Serdes.String()));

        Properties properties = new Properties();
        properties.put(StreamsConfig.APPLICATION_ID_CONFIG, "bench-streams");
        properties.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, words[0]);
        properties.put(StreamsConfig.STATE_DIR_CONFIG, words[2]);
        properties.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        properties.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 1_000);
        properties.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 100_000_000L);
        properties.put("auto.offset.reset", "earliest");
        KafkaStreams streams = new KafkaStreams(builder.build(), properties);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(20))));
        streams.start();
        for (long said = 0;;) {
            Thread.sleep(100);
            long seen = SEEN.get();
            if (seen > said) {
                System.out.println(seen);
                said = seen;
            }
        }
    }
}
