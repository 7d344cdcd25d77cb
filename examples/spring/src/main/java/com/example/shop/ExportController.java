package com.example.shop;

import java.net.URI;
import java.util.Map;
import java.util.UUID;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.http.HttpHeaders;
import org.springframework.http.HttpStatus;
import org.springframework.http.ResponseEntity;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PathVariable;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.RestController;
import org.springframework.web.client.RestClient;
import org.springframework.web.server.ResponseStatusException;

@RestController
class ExportController {
    private final Exports exports;
    private final RestClient api;
    private final String userId;

    ExportController(
            Exports exports,
            @Value("${exporter.api-url}") String apiUrl,
            @Value("${exporter.token}") String token,
            @Value("${exporter.user-id}") String userId) {
        this.exports = exports;
        this.userId = userId;
        this.api = RestClient.builder()
                .baseUrl(apiUrl)
                .defaultHeader(HttpHeaders.AUTHORIZATION, "Bearer " + token)
                .defaultHeader(HttpHeaders.ACCEPT, "application/json")
                .build();
    }

    @PostMapping("/exports")
    Map<String, Object> request() throws Exception {
        return Map.of("job_id", exports.request(UUID.randomUUID(), userId, "ledger", "csv"));
    }

    @GetMapping("/exports/{jobId}")
    Map<String, Object> status(@PathVariable UUID jobId) {
        String status = exports.status(jobId);
        if (status == null) {
            throw new ResponseStatusException(HttpStatus.NOT_FOUND);
        }
        return Map.of("job_id", jobId, "status", status);
    }

    /** Sends the browser to a fresh link of the object store. */
    @GetMapping("/exports/{jobId}/file")
    ResponseEntity<Void> file(@PathVariable UUID jobId) {
        Map<?, ?> link = api.get().uri("/exports/jobs/{id}/download", jobId).retrieve().body(Map.class);
        return ResponseEntity.status(HttpStatus.FOUND).location(URI.create(link.get("url").toString())).build();
    }
}
