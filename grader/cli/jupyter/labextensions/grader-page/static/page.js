// JupyterLab reads a file once, when its tab is opened. This plug-in reads the page "Where am I" again whenever its tab
// comes to the front, so that it says what the checks reported since. It has printed text wrapped between words, where
// JupyterLab would break it after any letter. It has pictures follow JupyterLab's theme, which else follow the system's. And
// a theme that is chosen while JupyterLab follows the system is taken: JupyterLab only stops following it, and stays as it
// was. It is written as JupyterLab loads prebuilt extensions, and so needs no build.
(() => {
  const PAGE = "Where am I.md";
  const STYLE = `body .jp-OutputArea-output pre { word-break: normal; overflow-wrap: anywhere; }
    [data-jp-theme-light=false] img { color-scheme: dark; } [data-jp-theme-light=true] img { color-scheme: light; }`;
  const CHANGE = "apputils:change-theme";
  const plugin = {
    id: "grader-page:plugin",
    autoStart: true,
    activate: (app) => {
      const style = document.createElement("style");
      style.textContent = STYLE;
      document.head.append(style);
      let again = false;
      app.commands.commandExecuted.connect((_, { id, args, result }) => {
        if (id === CHANGE && !again) {
          result.then(() => {
            again = true;
            return app.commands.execute(CHANGE, args);
          }).finally(() => { again = false; });
        }
      });
      app.shell.currentChanged?.connect((_, { newValue: widget }) => {
        const context = widget?.context;
        if (context?.path === PAGE && context.isReady && !context.model.dirty) {
          context.revert();
        }
      });
    },
  };
  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB["grader-page"] = {
    init: () => {},
    get: async () => () => ({ default: plugin, __esModule: true }),
  };
})();
