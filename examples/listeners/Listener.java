// java Listener.java PORT TOKEN ID: welcomes commserver and pushes one attempt to it.
import java.io.*;
import java.net.*;
import java.util.Scanner;

record Listener(Socket link, String token, String id) implements Runnable {
    public static void main(String[] args) throws IOException {
        var here = InetAddress.getByName("127.0.0.1");
        var server = new ServerSocket(Integer.parseInt(args[0]), 50, here);
        while (true) new Thread(new Listener(server.accept(), args[1], args[2])).start();
    }

    public void run() {
        try (link; var lines = new Scanner(link.getInputStream(), "UTF-8").useDelimiter("\n")) {
            while (lines.hasNext()) {
                var line = lines.next();
                System.out.println(line);
                if (!line.contains("\"HANDSHAKE\"") || !line.contains('"' + token + '"')) continue;
                var answer = line + "\n{\"cmd\":\"EXERCISE\",\"id\":\"" + id + "\"}\n";
                link.getOutputStream().write(answer.getBytes("UTF-8"));
            }
        } catch (IOException gone) {
            System.out.println(gone);
        }
    }
}
