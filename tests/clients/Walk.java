import java.io.FileInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.WebSocket;
import java.net.http.WebSocketHandshakeException;
import java.nio.ByteBuffer;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.Arrays;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.TimeUnit;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/**
 * The client of the JDK (java.net.http): refused without a token, refused with one that lacks a claim, then through with a
 * good one. Arguments: host, port, the authority's file. Says what it saw, one JSON document on a line.
 */
public final class Walk implements WebSocket.Listener {
    private static final String TEXT = "gr\u00fc\u00dfe \u20ac";
    private static final byte[] BYTES = new byte[40_000];

    static {
        for (int at = 0; at < BYTES.length; at++) BYTES[at] = (byte) at;
    }

    private final StringBuilder text = new StringBuilder();
    private final ByteBuffer bytes = ByteBuffer.allocate(BYTES.length);
    private final CompletableFuture<String> saw = new CompletableFuture<>();

    @Override
    public CompletionStage<?> onText(WebSocket socket, CharSequence data, boolean last) {
        text.append(data);
        if (last) socket.sendBinary(ByteBuffer.wrap(BYTES), true);
        socket.request(1);
        return null;
    }

    @Override
    public CompletionStage<?> onBinary(WebSocket socket, ByteBuffer data, boolean last) {
        bytes.put(data);
        if (last) socket.sendClose(4000, "enough");
        socket.request(1);
        return null;
    }

    @Override
    public CompletionStage<?> onClose(WebSocket socket, int code, String reason) {
        boolean same = TEXT.contentEquals(text) && Arrays.equals(BYTES, bytes.array());
        // What the source says in ASCII is what the others say as it is.
        saw.complete("[\"" + (same ? "gr\\u00fc\\u00dfe \\u20ac" : "another") + "\"," + same + "," + code + ",\"" + reason + "\"]");
        return null;
    }

    @Override
    public void onError(WebSocket socket, Throwable error) {
        saw.completeExceptionally(error);
    }

    private static String walk(HttpClient client, URI uri, String token) throws Exception {
        WebSocket.Builder builder = client.newWebSocketBuilder();
        if (!token.isEmpty()) builder.header("Authorization", "Bearer " + token);
        Walk walk = new Walk();
        try {
            builder.buildAsync(uri, walk).join().sendText(TEXT, true);
        } catch (CompletionException refused) {
            if (refused.getCause() instanceof WebSocketHandshakeException) {
                return "" + ((WebSocketHandshakeException) refused.getCause()).getResponse().statusCode();
            }
            throw refused;
        }
        return walk.saw.get(30, TimeUnit.SECONDS);
    }

    public static void main(String[] arguments) throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null);
        try (FileInputStream file = new FileInputStream(arguments[2])) {
            store.setCertificateEntry("authority", CertificateFactory.getInstance("X.509").generateCertificate(file));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        SSLContext tls = SSLContext.getInstance("TLS");
        tls.init(null, trust.getTrustManagers(), null);
        HttpClient client = HttpClient.newBuilder().sslContext(tls).build();
        URI uri = URI.create("wss://" + arguments[0] + ":" + arguments[1] + "/walk");
        String[][] steps = {{"without", ""}, {"limited", System.getenv("LIMITED")}, {"good", System.getenv("GOOD")}};
        for (String[] step : steps) {
            String saw = walk(client, uri, step[1]);
            System.out.println("{\"client\":\"java.net.http\",\"step\":\"" + step[0] + "\",\"saw\":" + saw + "}");
        }
        System.exit(0);
    }
}
