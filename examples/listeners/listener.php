<?php // php listener.php PORT TOKEN ID: welcomes commserver and pushes one attempt to it.
[, $port, $token, $id] = $argv;
$server = stream_socket_server("tcp://127.0.0.1:$port");

while ($link = stream_socket_accept($server, -1)) { // one link at a time
    while (($line = fgets($link)) !== false) {
        echo $line;
        $packet = json_decode($line, true);
        if ($packet["cmd"] === "HANDSHAKE" && hash_equals($token, $packet["TOKEN"])) {
            fwrite($link, $line . json_encode(["cmd" => "EXERCISE", "id" => $id]) . "\n");
        }
    }
}
