package com.example.shop;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.time.Instant;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import org.springframework.kafka.annotation.KafkaListener;
import org.springframework.kafka.core.KafkaTemplate;
import org.springframework.stereotype.Service;

/** Requests exports over Kafka, and keeps what the lifecycle events say about them. */
@Service
class Exports {
    private final KafkaTemplate<String, String> kafka;
    private final ObjectMapper json;
    private final Map<UUID, String> statuses = new ConcurrentHashMap<>();

    Exports(KafkaTemplate<String, String> kafka, ObjectMapper json) {
        this.kafka = kafka;
        this.json = json;
    }

    /** Publishes a request; returns the id of its job once Kafka has the event. The same id again is the same job. */
    UUID request(UUID jobId, String userId, String exportType, String format) throws Exception {
        Map<String, Object> event = Map.of(
                "specversion", "1.0",
                "id", jobId.toString(),
                "source", "/examples/spring",
                "type", "export.requested",
                "time", Instant.now().toString(),
                "datacontenttype", "application/json",
                "data", Map.of("user_id", userId, "export_type", exportType, "format", format));
        statuses.putIfAbsent(jobId, "requested"); // before the first event about it can arrive
        kafka.send("exports.requests", jobId.toString(), json.writeValueAsString(event)).get(10, TimeUnit.SECONDS);
        return jobId;
    }

    /** Returns the last status of a job of this program: requested, pending, processing, completed, failed … */
    String status(UUID jobId) {
        return statuses.get(jobId);
    }

    @KafkaListener(topics = "exports.events", groupId = "example-spring")
    void heard(String message) throws JsonProcessingException {
        JsonNode event = json.readTree(message);
        UUID jobId = UUID.fromString(event.path("subject").asText());
        String status = event.path("data").path("status").asText();
        statuses.computeIfPresent(jobId, (id, before) -> status);
    }
}
