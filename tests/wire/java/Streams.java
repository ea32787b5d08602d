import java.io.ByteArrayInputStream;
import java.io.FileInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/** Streams.java URL AUTHORITY.pem: many requests at a time, and uploads; prints version, status and size. */
public class Streams {
    public static void main(String[] arguments) throws Exception {
        KeyStore trusted = KeyStore.getInstance(KeyStore.getDefaultType());
        trusted.load(null, null);
        try (FileInputStream pem = new FileInputStream(arguments[1])) {
            trusted.setCertificateEntry("lb", CertificateFactory.getInstance("X.509").generateCertificate(pem));
        }
        TrustManagerFactory managers = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        managers.init(trusted);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, managers.getTrustManagers(), null);
        HttpClient client = HttpClient.newBuilder().sslContext(context).version(HttpClient.Version.HTTP_2).build();
        HttpRequest.Builder builder = HttpRequest.newBuilder(URI.create(arguments[0]));
        System.out.println("GET " + said(client.send(builder.build(), BodyHandlers.ofByteArray())));
        List<CompletableFuture<HttpResponse<byte[]>>> many =
            Stream.generate(() -> client.sendAsync(builder.build(), BodyHandlers.ofByteArray()))
                .limit(80).collect(Collectors.toList());
        for (CompletableFuture<HttpResponse<byte[]>> each : many) {
            if (!said(each.get()).equals("HTTP_2 200 100000")) {
                throw new IllegalStateException(said(each.get()));
            }
        }
        client.sendAsync(builder.build(), BodyHandlers.ofByteArray()).cancel(true);
        HttpRequest post = builder.POST(BodyPublishers.ofByteArray(new byte[500000])).build();
        System.out.println("POST " + said(client.send(post, BodyHandlers.ofByteArray())));
        HttpRequest pieces = builder.POST(
            BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(new byte[500000]))).build();
        System.out.println("pieces " + said(client.send(pieces, BodyHandlers.ofByteArray())));
    }

    private static String said(HttpResponse<byte[]> answer) {
        return answer.version() + " " + answer.statusCode() + " " + answer.body().length;
    }
}
